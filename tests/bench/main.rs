//! `cargo bench`: what a message costs this server, beside a plain TCP echo of the same bytes.
//! One command, one table, which is also in docs/FIGURES.md. Every figure is a ratio of two
//! measurements made in turn, or counted by the kernel: these hold on a noisy machine.
//! `cargo bench -- 'KiB'` makes some rows only, `cargo bench -- counted` what is not timed, and
//! `cargo bench -- --beside plain --beside './other-server {port}'` measures beside these servers.
//! Sections of their own: `cargo bench -- tls`, `compressed`, `grow` and `fanout`.

#![expect(clippy::cast_precision_loss, reason = "a ratio of nanoseconds needs no 53rd bit")]

mod counts;
#[cfg(feature = "deflate")]
mod deflate;
#[cfg(feature = "informer")]
mod fanout;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod gateway_counts;
mod grow;
mod measure;
#[cfg(any(feature = "deflate", feature = "gateway", feature = "informer", feature = "tls"))]
mod peers;
mod raw;
mod servers;
#[cfg(feature = "tls")]
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--bench").collect();
    let done = match args.as_slice() {
        ["raw"] => raw::serve(),
        #[cfg(feature = "deflate")]
        ["zlib"] => deflate::zlib_alone(),
        #[cfg(feature = "gateway")]
        ["http"] => gateway::serve(),
        #[cfg(feature = "gateway")]
        ["ask", address] => gateway::ask(address),
        ["load", spec @ ..] => measure::load(spec),
        #[cfg(feature = "tls")]
        ["handshakes", address, cert] => tls::handshakes(address, cert),
        #[cfg(feature = "informer")]
        ["api"] => fanout::api(),
        #[cfg(feature = "informer")]
        ["sends", length] => fanout::sends(length),
        #[cfg(feature = "informer")]
        ["view", address, path] => fanout::view(address, path),
        args => rows(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A section, or the rows of the main table.
fn rows(args: &[&str]) -> std::io::Result<()> {
    let (servers, only) = beside(args);
    match only.as_slice() {
        #[cfg(feature = "tls")]
        ["tls", only @ ..] => tls::table(&servers, |name| wants(only, name)),
        #[cfg(feature = "deflate")]
        ["compressed"] => deflate::table_beside(&servers),
        ["grow"] => grow::table(),
        #[cfg(feature = "informer")]
        ["fanout"] => fanout::table(),
        only if !servers.is_empty() => measure::table(&servers, |name| wants(only, name)),
        only => measure::table(&["plain"], |name| wants(only, name))
            .and_then(|()| compression(only))
            .and_then(|()| if wants(only, "gateway") { through_gateway() } else { Ok(()) })
            .and_then(|()| if wants(only, "counted") { counts::table() } else { Ok(()) }),
    }
}

#[cfg(feature = "deflate")]
fn compression(only: &[&str]) -> std::io::Result<()> {
    deflate::table(|name| wants(only, name))
}

#[cfg(not(feature = "deflate"))]
#[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
fn compression(_: &[&str]) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "gateway")]
fn through_gateway() -> std::io::Result<()> {
    gateway::table().and_then(|()| gateway_counts::table())
}

#[cfg(not(feature = "gateway"))]
#[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
fn through_gateway() -> std::io::Result<()> {
    Ok(())
}

/// The servers to measure beside, and the other words.
fn beside<'a>(args: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut servers, mut words, mut rest) = (Vec::new(), Vec::new(), args);
    loop {
        match rest {
            ["--beside", command, after @ ..] => {
                servers.push(*command);
                rest = after;
            }
            [word, after @ ..] => {
                words.push(*word);
                rest = after;
            }
            [] => return (servers, words),
        }
    }
}

/// All rows, or those that have one of these words in their names.
fn wants(only: &[&str], name: &str) -> bool {
    only.is_empty() || only.iter().any(|word| name.contains(word))
}
