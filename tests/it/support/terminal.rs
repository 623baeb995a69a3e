//! A command at a terminal, and somebody who reads before typing.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

/// Ended when dropped.
pub(crate) struct Terminal {
    script: Child,
    keyboard: Arc<Mutex<ChildStdin>>,
    screen: Arc<Mutex<String>>,
}

/// "Where is the cursor?" (ECMA-48, DSR): redis-cli asks when it starts before Docker has told its terminal's size, and
/// waits for the answer.
const WHERE: &str = "\x1b[6n";
const IN_THE_CORNER: &str = "\x1b[24;80R";

impl Terminal {
    /// `script` gives the command a terminal, as `docker run -t` asks for one.
    pub(crate) fn run(script: &mut Command, line: &str) -> Terminal {
        // A terminal without a size would be asked for it.
        let line = format!("stty rows 24 columns 80; {line}");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script is installed");
        let keyboard = Arc::new(Mutex::new(script.stdin.take().expect("a pipe")));
        let mut output = script.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, answers) = (Arc::clone(&screen), Arc::clone(&keyboard));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut answered = 0;
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                let mut screen = shown.lock().unwrap();
                screen.push_str(&String::from_utf8_lossy(&bytes[..n]));
                for _ in answered..screen.matches(WHERE).count() {
                    answered += 1;
                    // A program that has ended needs no answer.
                    write!(answers.lock().unwrap(), "{IN_THE_CORNER}").ok();
                }
            }
        });
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
        // The key that ends a line sends a carriage return.
        write!(self.keyboard.lock().unwrap(), "{line}\r").expect("a terminal that is open");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}
