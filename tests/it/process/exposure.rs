//! What a default or careless configuration must not expose: files, Deployments, callbacks; and
//! which file names are served.

use std::os::unix::fs::symlink;

use super::*;

/// The response to a GET with a further field.
fn asked(client: &mut Client, path: &str, field: &str) -> String {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n").as_bytes());
    client.line()
}

#[test]
fn files_are_found_however_a_client_spells_them() {
    let folder = Folder::new("spelling");
    for name in ["logo@2x.png", "file(1).txt", "a+b.txt", "é.txt", "50%.txt", "a b.txt"] {
        fs::write(folder.0.join(name), "found").unwrap();
    }
    fs::create_dir(folder.0.join("d")).unwrap();
    fs::write(folder.0.join("d/x.txt"), "found").unwrap();
    let directory = folder.0.to_str().unwrap();
    let server = Server::start(&["--assets", directory, "--base-path", "/base"]);
    let mut client = Client::connect(server.main);
    for path in [
        "/logo@2x.png",
        "/logo%402x.png",
        "/file(1).txt",
        "/file%281%29.txt",
        "/a+b.txt",
        "/a%2Bb.txt",
        "/a%2bb%2Etxt",
        "/%C3%A9.txt",
        "/%c3%a9.txt",
        "/50%25.txt",
        "/a%20b.txt",
        "/d/x.txt",
    ] {
        let response = client.get(&format!("/base{path}"));
        assert!(
            response.starts_with("200 ") && response.contains("content-length=\"5\""),
            "{path}: {response}"
        );
    }
    for path in [
        "/d%2Fx.txt",
        "/d%2fx.txt",
        "/d/x.txt%00",
        "/a%2525b.txt",
        "/50%.txt",
        "/50%2525.txt",
        "/d/../a+b.txt",
        "/d/%2e%2e/a+b.txt",
    ] {
        let response = client.get(&format!("/base{path}"));
        assert!(response.starts_with("404 "), "{path}: {response}");
    }
}

#[test]
fn no_gzip_for_clients_that_refuse_it() {
    let folder = Folder::new("gzip");
    fs::write(folder.0.join("page.html"), "compress me ".repeat(100)).unwrap();
    let server = Server::start(&["--assets", folder.0.to_str().unwrap()]);
    let mut client = Client::connect(server.main);
    for weights in ["gzip;Q=0", "gzip; q = 0", "br, gzip;Q=0.0", "*;q=0", "identity;q=1, *;q=0"] {
        let response = asked(&mut client, "/page.html", &format!("Accept-Encoding: {weights}"));
        assert!(response.contains("content-length=\"1200\""), "{weights}: {response}");
    }
    let response = asked(&mut client, "/page.html", "Accept-Encoding: *;q=0, gzip;Q=0.1");
    assert_eq!(
        response.contains("content-encoding=\"gzip\""),
        cfg!(feature = "deflate"),
        "{response}"
    );
}

/// As the kubelet mounts a `ConfigMap`: links to a link to a hidden directory, all inside.
#[test]
fn links_stay_inside_of_the_directory() {
    let folder = Folder::new("links");
    let mount = folder.0.join("mount");
    let versions = ["..2026_11_21_03_00_00.1", "..2026_11_21_03_00_01.2"];
    for version in versions {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("index.html"), version).unwrap();
    }
    symlink(versions[0], mount.join("..data")).unwrap();
    symlink("..data/index.html", mount.join("index.html")).unwrap();
    // The directory itself may be a link.
    let directory = folder.0.join("served");
    symlink(&mount, &directory).unwrap();
    let mut server = Server::start(&["--assets", directory.to_str().unwrap()]);
    let mut client = Client::connect(server.main);
    assert!(client.get("/").ends_with(&format!("\"{}\"", versions[0])));
    assert!(client.get("/..data/index.html").starts_with("404 "));
    symlink(versions[1], mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    server.signal("HUP");
    server.wait_for("reload");
    assert!(client.get("/").ends_with(&format!("\"{}\"", versions[1])));
    fs::write(folder.0.join("secret"), "precious").unwrap();
    fs::create_dir(folder.0.join("mount-2")).unwrap();
    for (name, target) in [
        ("passwd", "/etc/passwd"),
        ("up.txt", "../secret"),
        ("sibling", "../mount-2"),
        ("whole", "/"),
    ] {
        let link = mount.join(name);
        symlink(target, &link).unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--log-format", "text", "--assets"];
        let outcome = output(&[&arguments[..], &[mount.to_str().unwrap()]].concat(), &[]);
        let refusal = format!(
            "wspulse: --assets: cannot serve {} is a link that leads out of the directory: \
             replace it by a copy\n",
            link.display()
        );
        assert_eq!(outcome, (1, String::new(), refusal));
        server.signal("HUP");
        assert_eq!(server.wait_for("reload")["level"], "warn");
        fs::remove_file(&link).unwrap();
    }
    assert!(client.get("/").ends_with(&format!("\"{}\"", versions[1])));
}

#[test]
fn no_time_of_a_mount_is_longer_than_a_day() {
    for name in ["delay", "randping", "every", "ping", "work", "close_after"] {
        let mount = format!("/x=echo?{name}=10000h");
        let (code, _, err) = output(&["--mount", &mount], &[]);
        assert!(err.contains(&format!("parameter {name}: ")) && err.contains("24h"), "{err}");
        assert_eq!(code, 2, "{mount}");
        assert_eq!(output(&["--check", "--mount", &format!("/x=echo?{name}=24h")], &[]).0, 0);
    }
    let mut server = Server::start(&["--faults", "--mount", "/x=echo?close_after=24h"]);
    let mut client = Client::upgraded(server.main, "/x", &[]);
    client.send(&text("still here"));
    assert_eq!(client.line(), "text \"still here\"");
    let mut refused = Client::connect(server.main);
    refused.send(&crate::peer::upgrade("/echo?close_after=25h", &[]));
    let response = refused.line();
    assert!(
        response.starts_with("400 ")
            && response.contains("close_after: must be a duration up to 24h")
    );
    server.signal("TERM");
    assert_eq!(client.line(), "close 1001 \"draining\"");
    drop(client);
    assert_eq!(server.exit(), Some(0));
}

#[cfg(feature = "gateway")]
#[test]
fn callbacks_from_other_machines_need_a_token_or_a_flag() {
    let gateway = ["--check", "--gateway-backend", "http://127.0.0.1:1", "--admin-listen"];
    let code = |more: &[&str]| output(&[&gateway[..], more].concat(), &[]).0;
    for near in ["127.0.0.1:1", "127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/x", "off"]
    {
        assert_eq!(code(&[near]), 0, "{near}");
    }
    for far in ["[::]:8081", "0.0.0.0:8081", "192.0.2.1:8081"] {
        let (code_without, _, err) = output(&[&gateway[..], &[far]].concat(), &[]);
        assert_eq!(code_without, 2, "{far}");
        for name in ["--admin-listen", "-token-file", "-credentials-file", "--gateway-open", far] {
            assert!(err.contains(name), "{name} in {err}");
        }
        assert_eq!(code(&[far, "--gateway-open"]), 0);
        assert_eq!(code(&[far, "--gateway-token-file", "/t"]), 0);
        assert_eq!(code(&[far, "--gateway-credentials-file", "/c"]), 0);
    }
    // Without a gateway there are no callbacks.
    assert_eq!(output(&["--check", "--admin-listen", "[::]:8081"], &[]).0, 0);
}

/// A kubeconfig of an API server that is this listener.
#[cfg(feature = "informer")]
fn kubeconfig(folder: &Folder, api: &TcpListener) -> String {
    let path = folder.0.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    \
         server: http://{}\ncontexts:\n- name: c\n  context:\n    cluster: k\n    user: u\n\
         users:\n- name: u\n  user: {{}}\n",
        api.local_addr().unwrap()
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[cfg(feature = "informer")]
#[test]
fn kube_auto_uses_a_kubeconfig_on_loopback_only() {
    let folder = Folder::new("kubeconfig");
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = kubeconfig(&folder, &api);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Server::run_in(command, &[("KUBECONFIG", &path)])
    };
    let server = run(&LISTENERS);
    let _viewer = Client::upgraded(server.main, "/api/wds/logs", &[]);
    // It is asked for Deployments.
    drop(api.accept().unwrap());
    assert_eq!(server.logged("kube").len(), 0, "{:?}", server.log);
    // One address that other machines can reach is enough. This one cannot be bound: exit 1.
    let far = ["--listen", "127.0.0.1:0", "--listen", "192.0.2.1:0", "--admin-listen", "off"];
    let (code, _, err) = output(&far, &[("KUBECONFIG", &path)]);
    assert_eq!(code, 1, "{err}");
    let lines: Vec<&str> = err.lines().filter(|line| line.contains("\"kube\"")).collect();
    assert!(lines.len() == 1 && lines[0].contains("--kube kubeconfig"), "{err}");
    let asked_for = [&far[..], &["--kube", "kubeconfig"]].concat();
    let (_, _, err) = output(&asked_for, &[("KUBECONFIG", &path)]);
    assert!(!err.contains("\"kube\""), "{err}");
}
