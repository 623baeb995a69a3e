//! The terminal: raw and on its alternate screen until dropped, also after a panic.

use std::io::{self, Stdout};
use std::panic;
use std::time::SystemTime;

use crossterm::cursor::Show;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use futures_util::StreamExt;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;

use super::model::{Key, Model};
use super::view::{self, Palette};

/// The screen and the keyboard.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    events: EventStream,
    _restore: Restore,
}

/// Restores the terminal when dropped.
struct Restore;

impl Screen {
    /// Takes over the terminal.
    pub(super) fn enter() -> io::Result<Screen> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
        enable_raw_mode()?;
        let restore = Restore;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Screen { terminal, events: EventStream::new(), _restore: restore })
    }

    /// Draws the model.
    pub(super) fn draw(&mut self, model: &Model, palette: Palette) -> io::Result<()> {
        let now = SystemTime::now();
        self.terminal.draw(|frame| view::render(model, frame.area(), frame.buffer_mut(), palette, now))?;
        Ok(())
    }

    /// Waits for a key. Returns `None` if something else has happened, such as a new size.
    pub(super) async fn key(&mut self) -> io::Result<Option<Key>> {
        match self.events.next().await {
            Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => Ok(key_of(key)),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

/// An error cannot be reported: the terminal is gone.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Returns the width of the terminal.
pub(super) fn width() -> Option<u16> {
    crossterm::terminal::size().ok().map(|(width, _)| width).filter(|width| *width > 0)
}

fn key_of(key: KeyEvent) -> Option<Key> {
    let has = |modifier| key.modifiers.contains(modifier);
    match key.code {
        KeyCode::Char('c') if has(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char(c) if !has(KeyModifiers::CONTROL) && !has(KeyModifiers::ALT) => Some(Key::Char(c)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Tab => Some(Key::Tab),
        KeyCode::BackTab => Some(Key::BackTab),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        _ => None,
    }
}
