//! `load`, `connect` and `healthcheck` through TLS: whom they believe, and what they say if not.

use super::tls::{Authority, start};
use super::*;

/// Runs a tool to its end, with nothing to read.
fn run(arguments: &[&str]) -> (i32, String, String) {
    output(arguments, &[])
}

#[test]
fn tools_believe_whom_they_are_told_to_believe() {
    let (folder, authority) = (Folder::new("tls-tools"), Authority::new());
    authority.vouch(&folder, "a", 2100);
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    fs::write(folder.0.join("ca.pem"), authority.certificate.pem()).unwrap();
    fs::write(folder.0.join("other.pem"), Authority::new().certificate.pem()).unwrap();
    let server = start(&folder, "a", &[]);
    let port = server.main.port();
    let (url, site) = (format!("wss://localhost:{port}/echo"), format!("https://localhost:{port}"));
    let (ca, other, none) = (file("ca.pem"), file("other.pem"), file("none.pem"));
    let not_trusted = "its certificate is not trusted";
    for (flags, why) in [
        (&["--ca-file", &ca][..], ""),
        (&["--insecure"], ""),
        (&[], not_trusted),
        (&["--ca-file", &other], not_trusted),
        (
            &["--ca-file", &file("a.key")],
            "the CA certificates to check it against are not valid PEM",
        ),
    ] {
        let (code, out, err) = run(&[&["connect", &url], flags].concat());
        if why.is_empty() {
            assert!(out.starts_with(&format!("Connected to {url}.\n")), "{out}");
            assert_eq!((code, err.as_str()), (0, ""), "{flags:?}");
        } else {
            assert_eq!((code, err), (1, format!("Failed to connect to {url}: {why}.\n")));
        }
        let (code, out, err) = run(&[&["healthcheck", &site], flags].concat());
        let said = if why.is_empty() { "200 OK" } else { why };
        let line = format!("{site}/healthz: {said}\n");
        assert_eq!((code, out + &err), (i32::from(!why.is_empty()), line));
        let load = ["load", &url, "--clients", "3", "--messages", "5", "--verify", "--json"];
        let (code, out, _) = run(&[&load[..], flags].concat());
        let report: Value = serde_json::from_str(&out).unwrap();
        if why.is_empty() {
            assert_eq!((code, &report["answered"]), (0, &15.into()), "{out}");
        } else {
            assert_eq!((code, &report["causes"]), (1, &serde_json::json!({ why: 3 })), "{out}");
        }
    }
    for tool in [&["connect", &url][..], &["load", &url], &["healthcheck", &site]] {
        let (code, out, err) = run(&[tool, &["--ca-file", &none]].concat());
        let said = format!("--ca-file: cannot read {none}: No such file");
        assert!(code == 1 && (out + &err).contains(&said), "{err}");
        let (code, _, err) = run(&[tool, &["--insecure", "--ca-file", &ca]].concat());
        let said = "wspulse: --insecure and --ca-file exclude each other: leave one out\n";
        assert!(code == 2 && err.starts_with(said), "{err}");
    }
    // The name is the URL's, wherever one connects to.
    let elsewhere = format!("127.0.0.1:{port}");
    let through = ["connect", "wss://localhost/echo", "--ca-file", &ca, "--connect-to", &elsewhere];
    assert_eq!(run(&through).0, 0);
    let numbers = ["connect", &format!("wss://{elsewhere}/"), "--ca-file", &ca];
    let (code, _, err) = run(&numbers);
    assert!(code == 1 && err.contains("its certificate is for another name"), "{err}");
}

/// `openssl req -x509` makes such a one unless it is told otherwise, and curl takes it.
#[test]
fn an_authority_that_stands_for_a_server_is_told_apart() {
    let (folder, authority) = (Folder::new("tls-authority"), Authority::new());
    fs::write(folder.0.join("a.pem"), authority.certificate.pem()).unwrap();
    fs::write(folder.0.join("a.key"), authority.key_pem()).unwrap();
    let server = start(&folder, "a", &[]);
    let url = format!("wss://localhost:{}/", server.main.port());
    let ca = folder.0.join("a.pem").to_str().unwrap().to_owned();
    let (code, _, err) = run(&["connect", &url, "--ca-file", &ca]);
    assert!(code == 1 && err.contains("is a CA certificate"), "{err}");
}

/// As in a container whose only listener is a main one with TLS.
#[test]
fn a_server_behind_tls_is_asked_by_its_own_variables() {
    let (folder, authority) = (Folder::new("tls-health"), Authority::new());
    authority.vouch(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let port = server.main.port().to_string();
    let cert = ("WSPULSE_TLS_CERT", "/tls.crt");
    let told = [("WSPULSE_ADMIN_LISTEN", "off"), ("PORT", &*port), cert, ("WSPULSE_TLS_KEY", "k")];
    let (code, out, err) = output(&["healthcheck"], &told);
    let line = format!("https://localhost:{port}/healthz: 200 OK\n");
    assert_eq!((code, out + &err), (0, line));
}
