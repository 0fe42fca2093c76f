//! Every user's history, found by a keyed hash of the user_id.
//!
//! Users are kept in chunks that never move, so that growth neither copies histories nor doubles their memory.
//! The index holds 32 bits of the hash beside the user's number: growing it reads no user. The place of a user who is removed
//! is taken by the last one.

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
    /// The user that is looked at next for being forgotten.
    sweep: usize,
}

impl Users {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The history of the user of this key, empty for a new one.
    pub(crate) fn history_of(&mut self, key: UserKey) -> &mut History {
        let hash = short(key);
        let found = self.index.find(Slot::spread(hash), |slot| {
            slot.hash == hash && self.user(slot.user as usize).key == key
        });
        let number = match found {
            Some(slot) => slot.user as usize,
            None => self.add(key),
        };
        &mut self.chunks[number / CHUNK][number % CHUNK].history
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "2^32 users do not fit in memory"
    )]
    fn add(&mut self, key: UserKey) -> usize {
        let number = self.len();
        if number / CHUNK == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[number / CHUNK].push(User {
            key,
            history: History::default(),
        });
        let slot = Slot {
            hash: short(key),
            user: number as u32,
        };
        self.index
            .insert_unique(Slot::spread(slot.hash), slot, |slot| {
                Slot::spread(slot.hash)
            });
        number
    }

    fn user(&self, number: usize) -> &User {
        &self.chunks[number / CHUNK][number % CHUNK]
    }

    /// Looks at the next `count` users in turn and removes those whose latest record is of an hour before `hour`. Returns
    /// their histories. Users without such an hour are kept.
    pub(crate) fn sweep(&mut self, count: usize, hour: u32) -> impl Iterator<Item = History> {
        (0..count).filter_map(move |_| {
            if self.sweep >= self.len() {
                self.sweep = 0;
            }
            let history = &self.chunks.get(self.sweep / CHUNK)?[self.sweep % CHUNK].history;
            if history.seen_hour == 0 || history.seen_hour >= hour {
                self.sweep += 1;
                return None;
            }
            self.remove(self.sweep)
        })
    }

    /// Removes a user; the last one takes the number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "2^32 users do not fit in memory"
    )]
    fn remove(&mut self, number: usize) -> Option<History> {
        let last = self.len() - 1;
        let hash = short(self.user(number).key);
        let slot = self.index.find_entry(Slot::spread(hash), |slot| {
            slot.hash == hash && slot.user as usize == number
        });
        slot.ok()?.remove();
        let mut user = self.chunks[last / CHUNK].pop()?;
        if last.is_multiple_of(CHUNK) {
            self.chunks.pop();
        }
        if number < last {
            let hash = short(user.key);
            let moved = self.index.find_mut(Slot::spread(hash), |slot| {
                slot.hash == hash && slot.user as usize == last
            });
            if let Some(slot) = moved {
                slot.user = number as u32;
            }
            std::mem::swap(&mut self.chunks[number / CHUNK][number % CHUNK], &mut user);
        }
        // An index of which little is used is a waste of its memory.
        if self.index.len() < self.index.capacity() / 4 {
            self.index
                .shrink_to(self.index.len() * 2, |slot| Slot::spread(slot.hash));
        }
        Some(user.history)
    }

    /// Every user's key and history.
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

/// The part of a key that the index holds.
#[expect(clippy::cast_possible_truncation, reason = "some bits of a hash")]
const fn short(key: UserKey) -> u32 {
    key.0 as u32
}
