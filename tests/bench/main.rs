//! `cargo bench`: what a message costs this server, beside a plain TCP echo of the same bytes.
//! One command, one table, which also stands in the README. Every figure is a ratio of two
//! measurements made in turn, or counted by the kernel: these hold on a noisy machine.

#![expect(clippy::cast_precision_loss, reason = "a ratio of nanoseconds needs no 53rd bit")]

mod measure;
mod raw;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--bench").collect();
    let done = match args.as_slice() {
        ["raw"] => raw::serve(),
        ["load", spec @ ..] => measure::load(spec),
        only => measure::table(only),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
