//! The PROXY protocol on real sockets, before HTTP and before TLS.

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x04\xd2\0\x50";
const V1: &[u8] = b"PROXY TCP4 198.51.100.7 127.0.0.1 1234 80\r\n";
const WHOAMI: &[u8] = b"GET /whoami HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const FLAGS: [&str; 3] = ["--proxy-protocol", "--trusted-proxies", "127.0.0.0/8"];

/// The whole response, or what came before the end of the connection.
fn said(server: &Server, parts: &[&[u8]]) -> String {
    let mut client = Client::connect(server.main);
    for part in parts {
        client.send(part);
        client.stream.set_nodelay(true).unwrap();
    }
    let mut bytes = Vec::new();
    // Bytes that the server did not read cause a reset.
    let _ = client.stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_trusted_proxy_names_its_client() {
    let server = Server::start(&FLAGS);
    for header in [V1, V2] {
        let peer = "\"peer\":\"198.51.100.7:1234\"";
        assert!(said(&server, &[&[header, WHOAMI].concat()]).contains(peer));
        let bytes: Vec<&[u8]> = header.chunks(1).chain([WHOAMI]).collect();
        assert!(said(&server, &bytes).contains(peer));
    }
    let own = said(&server, &[b"PROXY UNKNOWN\r\n", WHOAMI]);
    assert!(own.contains("\"peer\":\"127.0.0.1:"), "{own}");
    // A health check of the proxy: no byte.
    let probe = Client::connect(server.main);
    probe.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(said(&server, &[WHOAMI]), "");
    // At once: after a reset, a second piece could not be sent.
    assert_eq!(said(&server, &[&[b"PROXY TCP4 x\r\n", WHOAMI].concat()]), "");
    // Probes on the admin listener need no header.
    assert!(Client::connect(server.admin).get("/healthz").starts_with("200 "));
}

#[test]
fn half_a_header_has_the_time_of_a_first_request() {
    let server = Server::start(&[&FLAGS[..], &["--head-timeout", "300ms"]].concat());
    for half in [&V1[..V1.len() - 1], &V2[..20]] {
        let mut client = Client::connect(server.main);
        client.send(half);
        let read = loop {
            match client.stream.read(&mut [0]) {
                // Also without a signal handler, where a machine is paused.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        // A reset, since the header was not read.
        let is_closed = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(matches!(&read, Ok(0)) || read.as_ref().is_err_and(is_closed), "{read:?}");
    }
}

#[test]
fn others_cannot_name_a_client() {
    let flags = ["--proxy-protocol", "--trusted-proxies", "10.0.0.0/8"];
    let server = Server::start(&flags);
    for header in [V1, V2] {
        assert!(said(&server, &[&[header, WHOAMI].concat()]).starts_with("HTTP/1.1 400 "));
    }
    assert!(said(&server, &[WHOAMI]).contains("\"peer\":\"127.0.0.1:"));
    let (code, _, err) = output(&["--proxy-protocol"], &[]);
    assert!(code == 2 && err.contains("--proxy-protocol needs --trusted-proxies"), "{err}");
}

#[cfg(feature = "tls")]
#[test]
fn the_header_comes_before_tls() {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    let (folder, authority) = (Folder::new("tls-proxied"), tls::Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = tls::start(&folder, "a", &FLAGS);
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    for header in [V1, V2] {
        let mut socket = Client::connect(server.main).stream;
        socket.write_all(header).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(WHOAMI).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("\"peer\":\"198.51.100.7:1234\""), "{page}");
    }
}
