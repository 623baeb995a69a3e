//! A command in a terminal with a simulated user, who waits for output before typing.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

/// A program that does not know the width of its terminal queries the cursor position at the right margin (ECMA-48,
/// DSR).
const CURSOR_POSITION_REQUEST: &str = "\x1b[6n";
const CURSOR_POSITION_REPORT: &[u8] = b"\x1b[1;80R";

/// A running command; ended when dropped.
pub(crate) struct Terminal {
    script: Child,
    keyboard: Arc<Mutex<ChildStdin>>,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs the command in a terminal of `script`, as `docker run -t` requires.
    pub(crate) fn run(script: &mut Command, line: &str) -> Terminal {
        script.args(["-qec", line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script is installed");
        let keyboard = Arc::new(Mutex::new(script.stdin.take().expect("a pipe")));
        let screen = Arc::new(Mutex::new(String::new()));
        let output = script.stdout.take().expect("a pipe");
        show(output, Arc::clone(&screen), Arc::clone(&keyboard));
        Terminal { script, keyboard, screen }
    }

    /// Waits until the screen shows this.
    pub(crate) fn shows(&self, text: &str) {
        eventually(text, || match self.screen.lock().unwrap().as_str() {
            screen if screen.contains(text) => Ok(()),
            screen => Err(screen.to_owned()),
        });
    }

    pub(crate) fn type_line(&self, line: &str) {
        // The Enter key sends a carriage return.
        write!(self.keyboard.lock().unwrap(), "{line}\r").expect("a terminal that is open");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}

/// Adds output to the screen and replies to queries like a terminal.
fn show(
    mut output: impl Read + Send + 'static,
    screen: Arc<Mutex<String>>,
    keyboard: Arc<Mutex<ChildStdin>>,
) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..n]);
            for _ in text.matches(CURSOR_POSITION_REQUEST) {
                keyboard.lock().unwrap().write_all(CURSOR_POSITION_REPORT).ok();
            }
            screen.lock().unwrap().push_str(&text);
        }
    });
}
