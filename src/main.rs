//! argv and the environment become one of the commands; an error becomes an exit code.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use wspulse::net::{logs, passed, process};
use wspulse::options::{self, Command, Serve, Surroundings, Usage};
use wspulse::run;

/// A failure while running: an address in use, a file that cannot be read.
const FAILED: u8 = 1;
/// Arguments or variables that cannot be used.
const USAGE: u8 = 2;
/// What the last log lines get: a standard error that nobody reads must not hold up the exit.
const LAST_LINES: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let surroundings = Surroundings { host_name: process::host_name() };
    let args = env::args_os().skip(1);
    let code = match options::parse(args, env::vars_os().collect(), &surroundings) {
        Ok(Command::Serve(serve)) => serve_until_exit(*serve),
        Ok(Command::Check(_)) => print("the settings can be used\n"),
        Ok(Command::Healthcheck(asked)) => match run::healthcheck(asked) {
            Ok((code, line)) => code.max(print(&format!("{line}\n"))),
            Err(error) => {
                print(&format!("the kernel does not let this run: {error}\n")).max(FAILED)
            }
        },
        #[cfg(feature = "tools")]
        Ok(Command::Load(load)) => match run::measure(*load) {
            Ok((code, report)) => code.max(print(&report)),
            Err(error) => fail(&error),
        },
        #[cfg(feature = "tools")]
        Ok(Command::Connect(connect)) => match run::connect(*connect) {
            Ok(code) => code,
            Err(error) => fail(&error),
        },
        Ok(Command::Print(text)) => print(&text),
        Err(usage) => refuse(&usage),
    };
    ExitCode::from(code)
}

fn serve_until_exit(serve: Serve) -> u8 {
    // Before any other descriptor is opened and any thread started.
    let passed = passed::take();
    if let Err(error) = run::start_logs(&serve.log) {
        logs::last_word(&format!("cannot start the log writer: {error}"), LAST_LINES);
        return FAILED;
    }
    match run::serve(serve, passed) {
        Ok(code) => {
            logs::flush(LAST_LINES);
            code
        }
        Err(error) => {
            logs::last_word(&error.to_string(), LAST_LINES);
            FAILED
        }
    }
}

/// Whoever reads may stop when they have seen enough (`wspulse --help | head -1`): no failure.
fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => FAILED,
        _ => 0,
    }
}

#[cfg(feature = "tools")]
fn fail(error: &run::ToolError) -> u8 {
    // As with a wrong flag: the exit code says it still.
    let _ = writeln!(io::stderr(), "wspulse: {error}");
    FAILED
}

fn refuse(usage: &Usage) -> u8 {
    let first = env::args_os().nth(1).unwrap_or_default();
    let command = options::command_with_help(&first);
    let command = command.map_or_else(String::new, |command| format!("{command} "));
    // With standard error gone there is nobody to be told; the exit code says it still.
    let _ = writeln!(io::stderr(), "wspulse: {usage}\ntry: wspulse {command}--help");
    USAGE
}
