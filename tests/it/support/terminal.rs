//! A command at a terminal, and somebody who reads before typing.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

/// Ended when dropped.
pub(crate) struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// `script` gives the command a terminal, as `docker run -t` asks for one.
    pub(crate) fn run(script: &mut Command, line: &str) -> Terminal {
        // A terminal without a size would be asked for it.
        let line = format!("stty rows 24 columns 80; {line}");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script is installed");
        let keyboard = script.stdin.take().expect("a pipe");
        let mut output = script.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
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

    pub(crate) fn type_line(&mut self, line: &str) {
        // The key that ends a line sends a carriage return.
        write!(self.keyboard, "{line}\r").expect("a terminal that is open");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}
