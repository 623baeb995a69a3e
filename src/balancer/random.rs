//! Random: lots are drawn by weight, and drawn again when that fails.

use super::chance::Draws;
use super::lots::Lots;
use super::tried::Tried;

pub(super) struct Choices<'p> {
    lots: &'p Lots,
    draws: Draws,
    tried: Tried,
}

impl<'p> Choices<'p> {
    pub(super) fn new(lots: &'p Lots, random: u64) -> Choices<'p> {
        Choices { lots, draws: Draws::new(random), tried: Tried::default() }
    }
}

impl Iterator for Choices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let choice = self.lots.draw(&mut self.draws, &self.tried, None)?;
        self.tried.add(choice);
        Some(choice)
    }
}
