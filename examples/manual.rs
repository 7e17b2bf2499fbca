//! Prints the manual page or a shell's completions, for packages:
//!
//! ```text
//! cargo run --example manual man > wspulse.1
//! cargo run --example manual bash > wspulse        # or zsh, fish
//! ```

use std::process::ExitCode;

use wspulse::options::manual;

fn main() -> ExitCode {
    let text = match std::env::args().nth(1).as_deref() {
        Some("man") => manual::man(),
        Some("bash") => manual::bash(),
        Some("zsh") => manual::zsh(),
        Some("fish") => manual::fish(),
        _ => {
            eprintln!("usage: cargo run --example manual man|bash|zsh|fish");
            return ExitCode::from(2);
        }
    };
    print!("{text}");
    ExitCode::SUCCESS
}
