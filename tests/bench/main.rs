//! `cargo bench`: what a message costs this server, beside a plain TCP echo of the same bytes.
//! One command, one table, which is also in docs/FIGURES.md. Every figure is a ratio of two
//! measurements made in turn, or counted by the kernel: these hold on a noisy machine.
//! `cargo bench -- 'KiB'` makes some rows only, `cargo bench -- counted` what is not timed, and
//! `cargo bench -- --beside plain --beside './other-server {port}'` measures beside these servers.

#![expect(clippy::cast_precision_loss, reason = "a ratio of nanoseconds needs no 53rd bit")]

mod counts;
#[cfg(feature = "deflate")]
mod deflate;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod gateway_counts;
mod measure;
mod raw;
mod servers;

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
        ["--beside", ..] => {
            let (servers, only) = beside(&args);
            measure::table(&servers, |name| wants(only, name))
        }
        only => measure::table(&["plain"], |name| wants(only, name))
            .and_then(|()| compression(only))
            .and_then(|()| if wants(only, "gateway") { through_gateway() } else { Ok(()) })
            .and_then(|()| if wants(only, "counted") { counts::table() } else { Ok(()) }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
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

/// The servers to measure beside, and the words after them.
fn beside<'a, 'b>(mut args: &'a [&'b str]) -> (Vec<&'b str>, &'a [&'b str]) {
    let mut servers = Vec::new();
    while let ["--beside", command, rest @ ..] = args {
        servers.push(*command);
        args = rest;
    }
    (servers, args)
}

/// All rows, or those that have one of these words in their names.
fn wants(only: &[&str], name: &str) -> bool {
    only.is_empty() || only.iter().any(|word| name.contains(word))
}
