//! Who may send: tenants by the hash of their keys. Made by the control thread, read by shards; pure.
//!
//! Keys are known by their SHA-256 only. They are 256 bits of randomness (`tidegate key new`), so a plain hash is as good as
//! a slow one: there is nothing to guess. A table never changes; a new one has a new generation.

use std::fmt;

use hashbrown::{HashMap, HashTable};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::limit::{Bucket, Limit, Measure, Published};
use super::{Credential, Share, Uses};
use crate::base::TenantId;

/// SHA-256 of a key.
pub type Digest = [u8; 32];

/// Heaviest weight of a tenant.
pub const WEIGHT_MAX: u32 = 1000;

/// The hash of `key`, as tables hold it.
#[must_use]
pub fn digest_of(key: &[u8]) -> Digest {
    Sha256::digest(key).into()
}

/// One tenant, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The number stored with his events.
    pub id: TenantId,
    /// His name.
    pub name: Box<str>,
    /// His share when the server is the bottleneck, in relation to others' weights: 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// His limit on events; `None`: no limit.
    pub events: Option<Limit>,
    /// His limit on bytes of bodies; `None`: no limit.
    pub bytes: Option<Limit>,
}

/// What a shard keeps for each tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct TenantUse {
    /// What he has had of the shard's work.
    pub share: Share,
    /// The shard's view of his limit on events.
    pub events: Bucket,
    /// The shard's view of his limit on bytes.
    pub bytes: Bucket,
}

/// Tenants that make no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantError {
    /// Two tenants have the same key: whose events would they be?
    SharedKey {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A tenant has a key twice: one of them was to be another.
    RepeatedKey {
        /// Which tenant.
        tenant: String,
    },
}

impl fmt::Display for TenantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedKey { first, second } => {
                write!(f, "tenants {first} and {second} have the same key: make one of them a new one")
            }
            Self::RepeatedKey { tenant } => write!(f, "tenant {tenant} has the same key twice: leave it out once"),
        }
    }
}

impl std::error::Error for TenantError {}

/// See the module text.
pub struct TenantTable {
    generation: u64,
    /// By slot. Slot 0 is the anonymous tenant's, whether or not anonymous requests are taken.
    tenants: Vec<Tenant>,
    keys: HashTable<(Digest, u32)>,
    key_needed: bool,
    ids: usize,
}

impl fmt::Debug for TenantTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantTable({} tenants, generation {})", self.tenants.len() - 1, self.generation)
    }
}

impl Default for TenantTable {
    fn default() -> Self {
        Self::anonymous()
    }
}

impl TenantTable {
    /// Without keys: everybody is the anonymous tenant, and nobody is limited.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(1, Vec::new()).expect("nobody shares a key")
    }

    /// The table number `generation` (from 1) of `tenants` and the hashes of their keys. With tenants, a key is needed.
    ///
    /// # Errors
    /// [`TenantError`] if a key is there twice.
    pub fn new(generation: u64, tenants: Vec<(Tenant, Vec<Digest>)>) -> Result<Self, TenantError> {
        assert!(generation > 0, "0 is the generation of no table");
        let anonymous =
            Tenant { id: TenantId::default(), name: "anonymous".into(), weight: 1, events: None, bytes: None };
        let mut table = Self {
            generation,
            key_needed: !tenants.is_empty(),
            tenants: vec![anonymous],
            keys: HashTable::with_capacity(tenants.iter().map(|(_, keys)| keys.len()).sum()),
            ids: 1,
        };
        for (tenant, keys) in tenants {
            let slot = u32::try_from(table.tenants.len()).expect("tenants are numbered by u16");
            for key in keys {
                if let Some(other) = table.slot_of(&key) {
                    let second = tenant.name.to_string();
                    return Err(match table.tenants.get(other as usize) {
                        Some(first) => TenantError::SharedKey { first: first.name.to_string(), second },
                        // He is not in the table yet.
                        None => TenantError::RepeatedKey { tenant: second },
                    });
                }
                table.keys.insert_unique(prefix(&key), (key, slot), |(key, _)| prefix(key));
            }
            table.ids = table.ids.max(usize::from(tenant.id.0) + 1);
            table.tenants.push(tenant);
        }
        Ok(table)
    }

    /// This table taking the place of `old` at `now_ns`, on the clock that shards share: limits begin where those before them
    /// have come to, as [`Limit::following`] says.
    #[must_use]
    pub fn following(mut self, old: &Self, now_ns: u64, uses: &Uses) -> Self {
        let before: HashMap<TenantId, &Tenant> = old.named().iter().map(|tenant| (tenant.id, tenant)).collect();
        for tenant in &mut self.tenants[1..] {
            let before = before.get(&tenant.id);
            // Any shard sees the same of it.
            let published = |measure| Published::new(uses, 0, usize::from(tenant.id.0), measure);
            tenant.events = tenant.events.map(|limit| {
                limit.following(before.and_then(|before| before.events), now_ns, published(Measure::Events))
            });
            tenant.bytes = tenant.bytes.map(|limit| {
                limit.following(before.and_then(|before| before.bytes), now_ns, published(Measure::Bytes))
            });
        }
        self
    }

    /// Counts tables: a later one has a higher number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether requests without a key are refused.
    #[must_use]
    pub fn key_needed(&self) -> bool {
        self.key_needed
    }

    /// All tenants but the anonymous one.
    #[must_use]
    pub fn named(&self) -> &[Tenant] {
        &self.tenants[1..]
    }

    /// The tenant in `slot`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn tenant(&self, slot: u32) -> &Tenant {
        &self.tenants[slot as usize]
    }

    /// One more than the highest number of a tenant.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.ids
    }

    /// The slot of the tenant whose key this is.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.slot_of(&digest_of(key))
    }

    /// Which of the hashes share a prefix is no secret that helps to find a key; the rest is compared in constant time.
    fn slot_of(&self, digest: &Digest) -> Option<u32> {
        let found = self.keys.find(prefix(digest), |(known, _)| bool::from(known.ct_eq(digest)));
        found.map(|(_, slot)| *slot)
    }

    /// Whose request this is: `Ok` with his slot, or `Err` if a key is needed and this is none.
    ///
    /// # Errors
    /// When the request is to be refused as unauthorized; whether there was a key is not told.
    pub fn admit(&self, key: Option<&[u8]>, credential: &mut Credential) -> Result<u32, Unauthorized> {
        match key {
            _ if !self.key_needed => Ok(0),
            Some(key) => credential.identify(key, self).ok_or(Unauthorized),
            None => Err(Unauthorized),
        }
    }
}

/// A key is needed and was missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthorized;

/// A SHA-256 is as good a hash as any.
fn prefix(digest: &Digest) -> u64 {
    u64::from_le_bytes(*digest.first_chunk().expect("32 bytes are more than 8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: u16, name: &str) -> Tenant {
        Tenant { id: TenantId(id), name: name.into(), weight: 1, events: None, bytes: None }
    }

    #[test]
    fn a_key_names_its_tenant_and_nothing_else_does() {
        let keys = vec![digest_of(b"one"), digest_of(b"uno")];
        let table =
            TenantTable::new(3, vec![(tenant(7, "acme"), keys), (tenant(9, "b"), vec![digest_of(b"two")])]).unwrap();
        let mut credential = Credential::default();
        for (key, id) in [(&b"one"[..], 7), (b"uno", 7), (b"uno", 7), (b"two", 9), (b"one", 7)] {
            let slot = table.admit(Some(key), &mut credential).unwrap();
            assert_eq!(table.tenant(slot).id, TenantId(id));
        }
        for wrong in [None, Some(&b""[..]), Some(b"on"), Some(b"one "), Some(&[b'x'; 100])] {
            assert_eq!(table.admit(wrong, &mut credential), Err(Unauthorized), "{wrong:?}");
        }
        assert_eq!((table.ids(), table.named().len()), (10, 2));
    }

    #[test]
    fn a_known_key_is_asked_of_the_new_table_too() {
        let old = TenantTable::new(1, vec![(tenant(1, "a"), vec![digest_of(b"k")])]).unwrap();
        let new = TenantTable::new(2, vec![(tenant(1, "a"), vec![digest_of(b"l")])]).unwrap();
        let mut credential = Credential::default();
        assert!(old.admit(Some(b"k"), &mut credential).is_ok());
        assert_eq!(new.admit(Some(b"k"), &mut credential), Err(Unauthorized), "it was taken away");
        assert!(new.admit(Some(b"l"), &mut credential).is_ok());
        credential.forget();
        assert_eq!(format!("{credential:?}"), "Credential(none)");
    }

    #[test]
    fn a_key_of_two_tenants_is_refused_and_without_tenants_no_key_is_needed() {
        let twice = vec![(tenant(1, "a"), vec![digest_of(b"k")]), (tenant(2, "b"), vec![digest_of(b"k")])];
        let error = TenantTable::new(1, twice).unwrap_err().to_string();
        assert!(error.starts_with("tenants a and b have the same key"), "{error}");
        let own = TenantTable::new(1, vec![(tenant(1, "a"), vec![digest_of(b"k"), digest_of(b"k")])]).unwrap_err();
        assert_eq!(own.to_string(), "tenant a has the same key twice: leave it out once");
        assert_eq!(TenantTable::anonymous().admit(None, &mut Credential::default()), Ok(0));
        assert_eq!(TenantTable::anonymous().admit(Some(b"any"), &mut Credential::default()), Ok(0));
    }
}
