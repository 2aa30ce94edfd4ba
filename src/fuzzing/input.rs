//! The bytes of a fuzzer as decisions.

/// A source of decisions: a seed, or the bytes of a fuzzer.
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

/// Decisions that are bytes: one for each choice of up to 256 ways, two for a larger one. After the last byte each decision
/// is 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the bytes before the next `separator`, or all that are left.
    pub(super) fn until(&mut self, separator: u8) -> &'a [u8] {
        let end = memchr::memchr(separator, self.0);
        let (text, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        text
    }

    /// Takes as many bytes as the next byte says.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// Takes all bytes that are left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

impl Choices for Input<'_> {
    fn below(&mut self, end: usize) -> usize {
        let mut number = 0;
        for _ in 0..if end > 256 { 2 } else { 1 } {
            let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
            number = number << 8 | usize::from(*byte);
            self.0 = rest;
        }
        number % end
    }
}
