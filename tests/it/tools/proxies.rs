//! Outgoing connections through an HTTP proxy. The proxy knows where `pulse.invalid` is; nobody
//! else does.

use std::net::Shutdown;
use std::sync::mpsc::Sender;

use super::*;

const TOKEN: &str = "Proxy-Authorization: Basic dTpw\r\n";

/// A proxy that connects all its clients to this server, and reports what they asked for.
fn proxy(server: SocketAddr) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://u:p@{}", listener.local_addr().unwrap());
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(client, server, &sender));
        }
    });
    (url, asked)
}

fn serve(mut client: TcpStream, server: SocketAddr, asked: &Sender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let allowed = head.contains(TOKEN);
    asked.send(head).unwrap();
    if !allowed {
        let refusal = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(refusal).unwrap();
    }
    client.write_all(b"HTTP/1.1 200 Connected\r\nVia: 1.1 test\r\n\r\n").unwrap();
    let upstream = TcpStream::connect(server).unwrap();
    let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    std::thread::spawn(move || copy(&from, &to));
    copy(&upstream, &client);
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // Either side may end first.
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

#[test]
fn a_websocket_goes_through_a_proxy() {
    let server = Server::start(&[]);
    let (proxy, asked) = proxy(server.main);
    let variables = [("HTTP_PROXY", &*proxy), ("NO_PROXY", "other.invalid,10.0.0.0/8")];
    let words = [
        "load",
        "ws://pulse.invalid/echo",
        "--clients",
        "3",
        "--messages",
        "6",
        "--verify",
        "--json",
    ];
    let (code, out, err) = run_in(&variables, &words, b"");
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
    assert_eq!((code, &report["answered"]), (0, &18.into()), "{out}");
    let head =
        format!("CONNECT pulse.invalid:80 HTTP/1.1\r\nHost: pulse.invalid:80\r\n{TOKEN}\r\n");
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), vec![head; 3]);
    let words = ["connect", "ws://pulse.invalid/echo"];
    let (code, out, err) = run_in(&variables, &words, b"hello\n");
    assert!(code == 0 && out.contains("hello"), "{code} {out} {err}");
    let words = ["healthcheck", "http://pulse.invalid/healthz"];
    let (code, out, err) = run_in(&variables, &words, b"");
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert_eq!(asked.try_iter().count(), 2);
}

#[test]
fn this_machine_and_exceptions_need_no_proxy() {
    let server = Server::start(&[]);
    let (port, nobody) = (server.main.port(), format!("http://{}", closed()));
    let variables = [("http_proxy", &*nobody), ("NO_PROXY", "pulse.invalid")];
    let url = format!("http://localhost:{port}/healthz");
    let (code, _, err) = run_in(&variables, &["healthcheck", &url], b"");
    assert_eq!((code, &*err), (0, ""));
    let (code, out, err) = run_in(&variables, &["healthcheck", "http://pulse.invalid/"], b"");
    assert_eq!(code, 1);
    assert!(format!("{out}{err}").contains("its name cannot be looked up"), "{out}{err}");
}

/// An error names the proxy as the one that failed, never the server.
#[test]
fn what_a_proxy_does_wrong_is_said_of_the_proxy() {
    let server = Server::start(&[]);
    let (proxy, _asked) = proxy(server.main);
    let refused = proxy.replace("u:p@", "");
    let silent = format!("http://{}", answering(b""));
    let garbage = format!("http://{}", answering(b"SSH-2.0-x\r\n"));
    let forbids = format!("http://{}", answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"));
    let nobody = format!("http://{}", closed());
    for (proxy, why) in [
        (&*refused, "the proxy answered 407: it requires other credentials"),
        (&*garbage, "the proxy's answer to CONNECT is not valid HTTP"),
        (&*forbids, "the proxy answered CONNECT with 403"),
        (&*nobody, "the proxy's port refuses connections"),
        ("http://a..b:1", "the name of the proxy cannot be resolved"),
        (&*silent, "timed out after 300ms: cannot connect"),
    ] {
        let words = ["healthcheck", "http://pulse.invalid/", "--timeout", "300ms"];
        let (code, out, err) = run_in(&[("HTTP_PROXY", proxy)], &words, b"");
        assert!(code == 1 && format!("{out}{err}").contains(why), "{why}: {out}{err}");
    }
    let words = ["healthcheck", "http://pulse.invalid/"];
    let (code, _, err) = run_in(&[("HTTP_PROXY", "https://u:p@proxy:1")], &words, b"");
    assert_eq!(code, 2);
    let why = "HTTP_PROXY \"https://***@proxy:1\": must begin with http://";
    assert!(err.contains(why), "{err}");
}
