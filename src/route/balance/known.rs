//! The last list that a strategy saw, for strategies with memory of each server.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Servers;

/// The ids of the last list, in its order.
#[derive(Debug, Default)]
pub(super) struct Known {
    generation: Option<u64>,
    ids: Vec<Box<str>>,
}

impl Known {
    /// Replaces the list by `servers`. Returns `None` if it did not change, else the new index of each
    /// old server that is still in the list.
    ///
    /// Cost: one comparison if the generation is the same, one per id if only the generation changed; a
    /// hash and an allocation per id if the list changed.
    pub(super) fn follow(&mut self, servers: &impl Servers) -> Option<Vec<Option<usize>>> {
        let generation = Some(servers.generation());
        let count = servers.count();
        // The count is compared too, so that no mistake of a caller leads to an index past the list.
        if self.generation == generation && self.ids.len() == count {
            return None;
        }
        self.generation = generation;
        let ids = || (0..count).map(|index| servers.id(index));
        if ids().eq(self.ids.iter().map(AsRef::as_ref)) {
            return None;
        }
        let mut indices: HashMap<&str, usize, RandomState> = ids().zip(0..).collect();
        debug_assert_eq!(indices.len(), count, "ids are unique");
        let moved = self
            .ids
            .iter()
            .map(|id| indices.remove(id.as_ref()))
            .collect();
        self.ids = ids().map(Into::into).collect();
        Some(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::List;
    use super::*;

    #[test]
    fn each_server_of_before_is_told_where_it_is_now() {
        let mut known = Known::default();
        let mut list = List::new(&["a", "b", "c"]);
        assert_eq!(known.follow(&list), Some(vec![]));
        assert_eq!(known.follow(&list), None);
        list.change(&["c", "d", "a"]);
        assert_eq!(known.follow(&list), Some(vec![Some(2), None, Some(0)]));
        list.change(&["c", "d", "a"]);
        assert_eq!(
            known.follow(&list),
            None,
            "a new generation of the same list"
        );
        list.change(&["c"]);
        assert_eq!(known.follow(&list), Some(vec![Some(0), None, None]));
        assert_eq!(known.ids.len(), 1);
    }
}
