//! Decisions of clients and servers that a test plays.

/// A source of decisions.
pub trait Choices {
    /// Chooses a number below `end`.
    fn below(&mut self, end: usize) -> usize;

    /// Chooses yes, one time in `n`.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Chooses a byte.
    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// Chooses an element of a list.
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
