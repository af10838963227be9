//! What commands print. The standard library's `println!` and `eprintln!` panic if nobody reads any more, as in
//! `countersign requests list | head -1`.
//!
//! - [`say!`] prints what a command is for, on the standard output: if nobody reads that, the command ends.
//! - [`note!`] tells people something on the standard error: whether they read it changes nothing.

mod progress;

use std::fmt::Arguments;
use std::io::{self, Write};
use std::process;

pub use progress::Progress;

/// The exit code of a command whose output nobody reads, as that of a program that SIGPIPE ends.
pub const CLOSED: u8 = 141;

/// The exit code of a command whose output cannot be written: `EX_IOERR` of `sysexits.h`.
const NOT_WRITTEN: u8 = 74;

/// Prints a line on the standard output, with the arguments of [`format!`]. It ends the process if that fails: with
/// [`CLOSED`] if nobody reads it, and else with 74, and says why.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::say_text(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line on the standard error, with the arguments of [`format!`], if it can.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::note_text(format_args!("{}\n", format_args!($($text)*))) };
}

/// As [`say!`], without the end of a line.
pub fn say_text(text: Arguments<'_>) {
    if let Err(error) = write(&mut io::stdout().lock(), text) {
        process::exit(failed(&error, &mut io::stderr().lock()).into());
    }
}

/// As [`note!`], without the end of a line.
pub fn note_text(text: Arguments<'_>) {
    let _ = write(&mut io::stderr().lock(), text);
}

/// At once, even if a line is unfinished.
fn write(out: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    out.write_fmt(text)?;
    out.flush()
}

/// The exit code of a command that cannot print.
fn failed(error: &io::Error, stderr: &mut impl Write) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CLOSED;
    }
    let _ = write(stderr, format_args!("error: the output cannot be written: {error}\n"));
    NOT_WRITTEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_print_says_why_unless_nobody_reads() {
        let mut told = Vec::new();
        assert_eq!(failed(&io::ErrorKind::BrokenPipe.into(), &mut told), CLOSED);
        assert_eq!(told, b"");
        assert_eq!(failed(&io::Error::other("the disk is full"), &mut told), NOT_WRITTEN);
        assert_eq!(
            String::from_utf8(told).unwrap(),
            "error: the output cannot be written: the disk is full\n"
        );
    }

    #[test]
    fn what_is_written_comes_at_once() {
        let mut out = io::BufWriter::new(Vec::new());
        write(&mut out, format_args!("{} of {}", 1, 2)).unwrap();
        assert_eq!(out.get_ref(), b"1 of 2");
    }
}
