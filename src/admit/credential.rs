//! What a connection has shown of itself: the last key and whose it is, so that a kept connection hashes it once. Shard
//! thread; pure.

use subtle::ConstantTimeEq;

use super::tenants::TenantTable;

/// Longest key; a longer one is nobody's.
pub const KEY_BYTES_MAX: usize = 64;

/// See the module text. Kept per connection, and of one connection only.
#[derive(Clone, Copy)]
pub struct Credential {
    bytes: [u8; KEY_BYTES_MAX],
    len: u8,
    /// The table that knew it; 0: none did.
    generation: u64,
    slot: u32,
}

impl Default for Credential {
    fn default() -> Self {
        Self { bytes: [0; KEY_BYTES_MAX], len: 0, generation: 0, slot: 0 }
    }
}

impl std::fmt::Debug for Credential {
    /// Never the key: what is logged is read by others.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", if self.generation == 0 { "none" } else { "known" })
    }
}

impl Credential {
    /// Whose key this is: the tenant's slot in `table`; `None` if it is nobody's. Compares in constant time with the last key
    /// that `table` knew, and hashes only another one.
    pub fn identify(&mut self, key: &[u8], table: &TenantTable) -> Option<u32> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return None;
        }
        let is_known = self.generation == table.generation()
            && usize::from(self.len) == key.len()
            && bool::from(self.bytes[..key.len()].ct_eq(key));
        if is_known {
            return Some(self.slot);
        }
        let slot = table.find(key)?;
        self.forget();
        self.bytes[..key.len()].copy_from_slice(key);
        self.len = key.len() as u8;
        (self.generation, self.slot) = (table.generation(), slot);
        Some(slot)
    }

    /// Forgets the key: the connection is over.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tenants::{Tenant, digest_of};
    use super::*;
    use crate::base::TenantId;

    #[test]
    fn a_key_has_at_most_64_bytes() {
        for (bytes, slot) in [(1, Some(1)), (KEY_BYTES_MAX, Some(1)), (KEY_BYTES_MAX + 1, None)] {
            let key = vec![b'k'; bytes];
            let tenant = Tenant { id: TenantId(1), name: "a".into(), weight: 1, events: None, bytes: None };
            let table = TenantTable::new(1, vec![(tenant, vec![digest_of(&key)])]).unwrap();
            let mut credential = Credential::default();
            assert_eq!(credential.identify(&key, &table), slot, "{bytes} bytes");
            assert_eq!(credential.identify(&key, &table), slot, "{bytes} bytes, when it is known");
            assert_eq!(credential.identify(&key[1..], &table), None);
        }
    }
}
