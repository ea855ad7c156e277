//! Dnodes by object number. Numbers are nearly dense and there may be millions: a list costs half of what a map does.

use crate::format::dnode::Dnode;

/// Numbers that are kept together, so that no list is ever copied to grow.
const CHUNK: usize = 256;

/// Objects by number.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Each empty, or `CHUNK` long.
    chunks: Vec<Vec<Option<Dnode>>>,
    len: usize,
}

impl Objects {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts an object at a number.
    pub(crate) fn insert(&mut self, object: u64, dnode: Dnode) {
        let (chunk, at) = place(object);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, Vec::new);
        }
        let chunk = &mut self.chunks[chunk];
        if chunk.is_empty() {
            chunk.reserve_exact(CHUNK);
            chunk.resize_with(CHUNK, || None);
        }
        if chunk[at].replace(dnode).is_none() {
            self.len += 1;
        }
    }

    /// The object with a number.
    pub(crate) fn get(&self, object: u64) -> Option<&Dnode> {
        let (chunk, at) = place(object);
        self.chunks.get(chunk)?.get(at)?.as_ref()
    }

    /// Like [`Objects::get`], to be changed.
    pub(crate) fn get_mut(&mut self, object: u64) -> Option<&mut Dnode> {
        let (chunk, at) = place(object);
        self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()
    }

    /// The objects with `count` numbers from `first` on, in order.
    pub(crate) fn range(&self, first: u64, count: u64) -> impl Iterator<Item = (u64, &Dnode)> {
        (first..first + count).filter_map(|object| Some((object, self.get(object)?)))
    }
}

fn place(object: u64) -> (usize, usize) {
    (object as usize / CHUNK, object as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_gaps() {
        let mut objects = Objects::default();
        for object in [1, 255, 256, 5000, 3] {
            objects.insert(object, Dnode::new(object as u8));
        }
        objects.insert(255, Dnode::new(9));
        assert_eq!(objects.len(), 5);
        let found: Vec<_> =
            objects.range(0, 6000).map(|(object, dnode)| (object, dnode.object_type)).collect();
        assert_eq!(found, [(1, 1), (3, 3), (255, 9), (256, 0), (5000, 136)]);
        assert!(objects.get(2).is_none() && objects.get(100_000).is_none());
        assert!(std::mem::size_of::<Option<Dnode>>() <= 72, "there may be millions");
    }
}
