//! Every user's history, found by a keyed hash of the user_id.
//!
//! Users are kept in chunks that never move, so that growth neither copies histories nor doubles their memory.
//! The index holds 32 bits of the hash beside the user's number: growing it reads no user.

use hashbrown::HashTable;

use super::history::History;
use super::layout::ALLOCATION_OVERHEAD;
use super::user_key::UserKey;

const CHUNK: usize = 1024;

struct User {
    key: UserKey,
    history: History,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    user: u32,
}

impl Slot {
    /// The table takes its position from the low bits and its tag from the highest.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Histories by user.
#[derive(Default)]
pub(crate) struct Users {
    chunks: Vec<Vec<User>>,
    index: HashTable<Slot>,
}

impl Users {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The history of the user of this key, empty for a new one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "some bits of a hash; and 2^32 users do not fit in memory"
    )]
    pub(crate) fn history_of(&mut self, key: UserKey) -> &mut History {
        let hash = key.0 as u32;
        let at = |slot: &Slot| (slot.user as usize / CHUNK, slot.user as usize % CHUNK);
        let found = self.index.find(Slot::spread(hash), |slot| {
            let (chunk, place) = at(slot);
            slot.hash == hash && self.chunks[chunk][place].key == key
        });
        let (chunk, place) = match found {
            Some(slot) => at(slot),
            None => {
                let slot = Slot {
                    hash,
                    user: self.len() as u32,
                };
                let (chunk, place) = at(&slot);
                if chunk == self.chunks.len() {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                self.chunks[chunk].push(User {
                    key,
                    history: History::default(),
                });
                self.index
                    .insert_unique(Slot::spread(hash), slot, |slot| Slot::spread(slot.hash));
                (chunk, place)
            }
        };
        &mut self.chunks[chunk][place].history
    }

    /// Every user's key and history, in the order in which users were first seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UserKey, &History)> {
        let users = self.chunks.iter().flatten();
        users.map(|user| (user.key, &user.history))
    }

    /// Memory held, without that of the histories.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunk = CHUNK * size_of::<User>() + ALLOCATION_OVERHEAD;
        self.chunks.len() * chunk
            + self.chunks.capacity() * size_of::<Vec<User>>()
            + self.index.allocation_size()
    }
}
