//! The gateway and its backend with a certificate authority of their own.

use super::tls::{Authority, start};
use super::*;

/// The value of a metric with its labels, from the admin listener.
fn value(server: &Server, sample: &str) -> Option<String> {
    let mut client = Client::connect(server.admin);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut page = String::new();
    client.stream.read_to_string(&mut page).unwrap();
    page.lines().find_map(|line| line.strip_prefix(sample)).map(|value| value.trim().to_owned())
}

/// A server with TLS stands for the backend, and for the gateway of a backend: it answers 404.
#[test]
fn gateway_and_backend_trust_the_given_authorities() {
    let (folder, authority) = (Folder::new("tls-gateway"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    fs::write(folder.0.join("ca.pem"), authority.certificate.pem()).unwrap();
    fs::write(folder.0.join("other.pem"), Authority::new().certificate.pem()).unwrap();
    let other = start(&folder, "a", &[]);
    let url = format!("https://localhost:{}", other.main.port());
    let (ca, wrong) = (file("ca.pem"), file("other.pem"));
    for (flags, outcome) in [
        (&["--gateway-ca-file", &ca][..], "status"),
        (&["--gateway-ca-file", &wrong], "unreachable"),
        (&[], "unreachable"),
    ] {
        let gateway = Server::start(&[&["--gateway-backend", &url], flags].concat());
        let mut client = Client::connect(gateway.main);
        client.send(&crate::peer::upgrade("/gateway/prod", &[]));
        assert!(client.line().starts_with("502 "));
        let labels = format!("route=\"$connect\",outcome=\"{outcome}\"");
        let sample = format!("gateway_requests_total{{{labels}}}");
        assert_eq!(value(&gateway, &sample).as_deref(), Some("1"), "{flags:?}");
    }
    for (flags, status) in [
        (&["--gateway-ca-file", &ca][..], "404"),
        (&["--ca-file", &ca], "404"),
        (&["--ca-file", &wrong, "--gateway-ca-file", &ca], "404"),
        (&["--ca-file", &ca, "--gateway-ca-file", &wrong], "none"),
        (&[], "none"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(["backend", "--listen", "127.0.0.1:0", "--gateway", &url]).args(flags);
        let mut backend = Server::spawn(command);
        let line = backend.wait_for("listening");
        backend.main = line["address"].as_str().unwrap().parse().unwrap();
        backend.admin = backend.main;
        let mut gateway = Client::connect(backend.main);
        gateway
            .send(b"POST / HTTP/1.1\r\nHost: h\r\nConnectionId: a\r\nContent-Length: 2\r\n\r\nhi");
        assert!(gateway.line().starts_with("200 "));
        let sample = format!("backend_callbacks_total{{status=\"{status}\"}}");
        assert_eq!(value(&backend, &sample).as_deref(), Some("1"), "{flags:?}");
    }
}

#[test]
fn an_unusable_ca_file_stops_the_start() {
    let folder = Folder::new("tls-gateway-files");
    let none = folder.0.join("none.pem").to_str().unwrap().to_owned();
    let empty = folder.0.join("empty.pem").to_str().unwrap().to_owned();
    fs::write(&empty, "").unwrap();
    for (path, why) in
        [(&none, format!("cannot read {none}")), (&empty, "has no certificate".to_owned())]
    {
        let gateway = ["--gateway-backend", "https://localhost:1", "--gateway-ca-file", path];
        let (code, _, err) = output(&gateway, &[]);
        assert!(code == 1 && err.contains("--gateway-ca-file") && err.contains(&why), "{err}");
        let backend = ["backend", "--listen", "127.0.0.1:0", "--ca-file", path];
        let (code, _, err) = output(&backend, &[]);
        assert!(code == 1 && err.contains("--ca-file") && err.contains(&why), "{err}");
    }
    let plain = ["--gateway-backend", "http://localhost:1", "--gateway-ca-file", &none];
    let (code, _, err) = output(&plain, &[]);
    assert!(code == 2 && err.contains("requires a backend with https://"), "{err}");
    let plain = ["backend", "--gateway-ca-file", &none];
    let (code, _, err) = output(&plain, &[]);
    assert!(code == 2 && err.contains("requires --gateway https://"), "{err}");
}
