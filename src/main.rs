//! Turns argv and the environment into a command, and its outcome into an exit code.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use wspulse::net::{logs, passed, process};
use wspulse::options::{self, Command, Serve, Surroundings, Usage};
use wspulse::run;

/// Exit code of a runtime failure: an address in use, an unreadable file.
const FAILED: u8 = 1;
/// Exit code of invalid arguments or environment variables.
const USAGE: u8 = 2;
/// How long the exit waits for the log writer: a standard error that is not read must not block it.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let surroundings = Surroundings { host_name: process::host_name() };
    let args = env::args_os().skip(1);
    let code = match options::parse(args, env::vars_os().collect(), &surroundings) {
        Ok(Command::Serve(serve)) => serve_until_exit(*serve),
        Ok(Command::Check(serve)) => check(*serve),
        Ok(Command::Healthcheck(asked)) => match run::healthcheck(asked) {
            Ok((code, line)) => code.max(print(&format!("{line}\n"))),
            Err(error) => print(&format!("a system call failed: {error}\n")).max(FAILED),
        },
        #[cfg(feature = "tools")]
        Ok(Command::Load(load)) => match run::measure(*load) {
            Ok((code, report)) => code.max(print(&report)),
            Err(error) => fail(&error),
        },
        #[cfg(feature = "tools")]
        Ok(Command::Merge(merge)) => match run::merge(*merge) {
            Ok((code, report)) => code.max(print(&report)),
            Err(error) => fail(&error),
        },
        #[cfg(feature = "tools")]
        Ok(Command::Connect(connect)) => match run::connect(*connect) {
            Ok(code) => code,
            Err(error) => fail(&error),
        },
        #[cfg(feature = "tools")]
        Ok(Command::Probe(probe)) => match run::probe(*probe) {
            Ok(probed) => {
                let code = probed.code.max(print(&probed.report));
                probed.unwritten.map_or(code, |error| code.max(fail(&error)))
            }
            Err(error) => fail(&error),
        },
        Ok(Command::Print(text)) => print(&text),
        Err(usage) => refuse(&usage),
    };
    ExitCode::from(code)
}

fn serve_until_exit(serve: Serve) -> u8 {
    // Must come before any other descriptor is opened and any thread is started.
    let passed = passed::take();
    if let Err(error) = run::start_logs(&serve.log) {
        logs::fatal(&format!("cannot start the log writer: {error}"), FLUSH_TIMEOUT);
        return FAILED;
    }
    match run::serve(serve, passed) {
        Ok(code) => {
            logs::flush(FLUSH_TIMEOUT);
            code
        }
        Err(error) => {
            logs::fatal(&error.to_string(), FLUSH_TIMEOUT);
            FAILED
        }
    }
}

/// `--check`: the flags are valid; checks what they refer to.
fn check(serve: Serve) -> u8 {
    if run::start_logs(&serve.log).is_err() {
        return FAILED;
    }
    let checked = run::check(serve);
    logs::flush(FLUSH_TIMEOUT);
    match checked {
        Ok(()) => print("the settings can be used\n"),
        Err(error) => {
            logs::fatal(&error.to_string(), FLUSH_TIMEOUT);
            FAILED
        }
    }
}

/// A broken pipe is no failure: in `wspulse --help | head -1` the reader closes early.
fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // If standard error is closed too, the exit code is the only report.
            let _ = writeln!(io::stderr(), "wspulse: cannot write to standard output: {error}");
            FAILED
        }
        _ => 0,
    }
}

#[cfg(feature = "tools")]
fn fail(error: &run::ToolError) -> u8 {
    // If standard error is closed, the exit code is the only report.
    let _ = writeln!(io::stderr(), "wspulse: {error}");
    FAILED
}

fn refuse(usage: &Usage) -> u8 {
    let first = env::args_os().nth(1).unwrap_or_default();
    let command = options::command_with_help(&first);
    let command = command.map_or_else(String::new, |command| format!("{command} "));
    // If standard error is closed, the exit code is the only report.
    let _ = writeln!(io::stderr(), "wspulse: {usage}\ntry: wspulse {command}--help");
    USAGE
}
