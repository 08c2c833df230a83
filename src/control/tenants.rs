//! The tenants of a running server: the table that its shards decide by, how a new one reaches them, and what is shown of
//! each. Control thread.
//!
//! A table never changes. A new one goes to each shard by a ring, and the bells are rung; a shard takes it before it looks at
//! another request. Old tables are kept here until no shard holds them, so that none is freed on a shard's time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::{Keys, KeysError};
use super::tenant_numbers::TenantNumbers;
use crate::admit::{Count, TenantTable, Use, Uses};

/// Tables on their way to a shard: it takes all of them when it wakes, and uses the last.
const NEWS_MAX: usize = 8;

/// What one shard is given of it.
pub struct ForShard {
    /// The table at the start.
    pub table: Arc<TenantTable>,
    /// Later ones.
    pub news: rtrb::Consumer<Arc<TenantTable>>,
    /// What all shards let tenants use.
    pub uses: Arc<Uses>,
}

/// See the module text.
#[derive(Debug)]
pub struct Tenants {
    file: Option<(PathBuf, TenantNumbers)>,
    /// The last is in force; those before it are held by shards that have not looked yet.
    tables: Vec<Arc<TenantTable>>,
    news: Vec<rtrb::Producer<Arc<TenantTable>>>,
    shown: Arc<TenantsShown>,
}

impl Tenants {
    /// Those of the key file at `path` if there is one, on `shards` shards; numbered in the log at `data`, which is locked.
    ///
    /// # Errors
    /// When the file is not what it should be, or tenants cannot be numbered.
    pub fn open(path: Option<&Path>, data: &Path, tenants_max: u32, shards: usize) -> Result<Self, KeysError> {
        let (file, table, ids) = match path {
            None => (None, TenantTable::anonymous(), 1),
            Some(path) => {
                let keys = Keys::read(path)?;
                let mut numbers = TenantNumbers::open(data, tenants_max).map_err(KeysError::Numbers)?;
                let table = keys.table(1, &mut numbers)?;
                // Room for those that a reload brings: the anonymous tenant is number 0.
                (Some((path.to_owned(), numbers)), table, tenants_max as usize + 1)
            }
        };
        let table = Arc::new(table);
        let shown = TenantsShown { table: Mutex::new(Arc::clone(&table)), uses: Arc::new(Uses::new(shards, ids)) };
        Ok(Self { file, tables: vec![table], news: Vec::with_capacity(shards), shown: Arc::new(shown) })
    }

    /// What the next shard is given.
    pub fn for_shard(&mut self) -> ForShard {
        let (producer, news) = rtrb::RingBuffer::new(NEWS_MAX);
        self.news.push(producer);
        ForShard { table: Arc::clone(self.in_force()), news, uses: Arc::clone(&self.shown.uses) }
    }

    /// What can be seen of them.
    #[must_use]
    pub fn shown(&self) -> Arc<TenantsShown> {
        Arc::clone(&self.shown)
    }

    /// Reads the key file again and sends the new table to every shard, whose bells are then to be rung; what it was, for
    /// the log. It is `now_ns` on the clock that shards share. Without a key file, or with one that is wrong, all stays as it is.
    pub fn reload(&mut self, now_ns: u64) -> String {
        let generation = self.in_force().generation() + 1;
        let Some((path, numbers)) = &mut self.file else {
            return "nothing to reload: no key file is configured (--tenants); other settings are fixed at start"
                .to_owned();
        };
        if self.news.iter().any(rtrb::Producer::is_full) {
            return "a shard has yet to take the tables sent before; keys and limits stay as they were: try again"
                .to_owned();
        }
        let old = self.tables.last().expect("there is always one");
        let table = match Keys::read_again(path).and_then(|keys| keys.table(generation, numbers)) {
            Ok(table) => Arc::new(table.following(old, now_ns, &self.shown.uses)),
            Err(error) => return format!("{error}; keys and limits stay as they were"),
        };
        for shard in &mut self.news {
            shard.push(Arc::clone(&table)).expect("room was looked for");
        }
        let tenants = table.named().len();
        *self.shown.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        self.tables.push(table);
        let last = self.tables.len() - 1;
        let mut at = 0..;
        self.tables.retain(|table| at.next() == Some(last) || Arc::strong_count(table) > 1);
        let s = if tenants == 1 { "" } else { "s" };
        format!("keys and limits of {tenants} tenant{s} taken over from {}", path.display())
    }

    fn in_force(&self) -> &Arc<TenantTable> {
        self.tables.last().expect("there is always one")
    }
}

/// What can be seen of tenants from outside the shards.
#[derive(Debug)]
pub struct TenantsShown {
    /// Locked by the control thread when it reloads or answers; no shard comes here.
    table: Mutex<Arc<TenantTable>>,
    uses: Arc<Uses>,
}

impl Default for TenantsShown {
    fn default() -> Self {
        Self { table: Mutex::default(), uses: Arc::new(Uses::new(1, 1)) }
    }
}

/// One figure of every tenant.
pub struct TenantField {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Where it is.
    pub of: fn(&Use) -> &Count,
}

/// All figures of a tenant.
pub const TENANT_FIELDS: &[TenantField] = &[
    TenantField { name: "requests", help: "Requests let in.", of: |used| &used.requests },
    TenantField { name: "events", help: "Events stored, or refused as invalid.", of: |used| &used.events },
    TenantField { name: "bytes", help: "Bytes of bodies, as they came.", of: |used| &used.bytes },
    TenantField { name: "limited", help: "Requests refused with 429: his limit.", of: |used| &used.limited },
    TenantField {
        name: "refused",
        help: "Requests refused with 503: the server's capacity.",
        of: |used| &used.refused,
    },
];

impl TenantsShown {
    /// The figures of each tenant that has asked for anything, in the order of [`TENANT_FIELDS`]; none without a key file.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, Vec<u64>)> {
        let table = Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner));
        let of_tenant = |tenant: &crate::admit::Tenant| {
            let sum = |field: &TenantField| self.uses.sum(usize::from(tenant.id.0), field.of);
            (tenant.name.to_string(), TENANT_FIELDS.iter().map(sum).collect::<Vec<u64>>())
        };
        table.named().iter().map(of_tenant).filter(|(_, figures)| figures.iter().any(|figure| *figure > 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{Bucket, Credential, Measure, Published, digest_of};
    use crate::base::TenantId;

    fn entry(name: &str, key: &str) -> String {
        let digest: String = digest_of(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = [\"{digest}\"]\n")
    }

    #[test]
    fn a_reload_reaches_every_shard_and_old_tables_go_when_no_shard_has_them() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys.toml");
        std::fs::write(&file, entry("a", "one")).unwrap();
        let mut tenants = Tenants::open(Some(&file), home.path(), 10, 2).unwrap();
        let mut shards = [tenants.for_shard(), tenants.for_shard()];
        std::fs::write(&file, entry("b", "two") + &entry("a", "three")).unwrap();
        assert!(tenants.reload(1).starts_with("keys and limits of 2 tenants taken over"), "{:?}", tenants.tables);
        assert_eq!(tenants.tables.len(), 2, "the shards have the old one");
        for shard in &mut shards {
            shard.table = shard.news.pop().unwrap();
            assert!(shard.table.admit(Some(b"one"), &mut Credential::default()).is_err());
            let slot = shard.table.admit(Some(b"three"), &mut Credential::default()).unwrap();
            assert_eq!(shard.table.tenant(slot).id, TenantId(1), "he was the first");
        }
        std::fs::write(&file, "nonsense").unwrap();
        let said = tenants.reload(1);
        assert!(said.contains("line 1") && said.ends_with("stay as they were"), "{said}");
        std::fs::write(&file, entry("a", "four")).unwrap();
        tenants.reload(1);
        assert_eq!(tenants.tables.len(), 2, "the first is gone, the second is in use");
        shards[1].uses.of(1, 1).events.add(7);
        assert_eq!(tenants.shown().figures(), [("a".to_owned(), vec![0, 7, 0, 0, 0])]);
    }

    #[test]
    fn a_reload_takes_over_what_is_left_of_a_debt() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys.toml");
        let limited = |per_second: u64| entry("a", "one") + &format!("events_per_second = {per_second}\nburst = 10\n");
        std::fs::write(&file, limited(10)).unwrap();
        let mut tenants = Tenants::open(Some(&file), home.path(), 10, 1).unwrap();
        let mut shard = tenants.for_shard();
        let uses = Arc::clone(&shard.uses);
        let (mut bucket, published) = (Bucket::default(), Published::new(&uses, 0, 1, Measure::Events));
        let mut check = |table: &TenantTable, now_ns| bucket.check(now_ns, table.tenant(1).events.as_ref(), published);
        check(&shard.table, 1).unwrap();
        uses.of(0, 1).events.add(1010);
        std::fs::write(&file, limited(100) + &entry("b", "two")).unwrap();
        tenants.reload(10_000_000_000);
        shard.table = shard.news.pop().unwrap();
        // Of 1000 too many 100 are paid; the rest at 100 a second.
        let over = check(&shard.table, 10_000_000_000).unwrap_err();
        assert_eq!((over.limit, over.retry_after_s), (100, 10), "nine seconds, and then one to use");
        assert!(check(&shard.table, 19_030_000_000).is_ok());
    }

    #[test]
    fn without_a_key_file_there_is_nothing_to_reload_or_to_show() {
        let home = tempfile::tempdir().unwrap();
        let mut tenants = Tenants::open(None, home.path(), 10, 1).unwrap();
        assert!(!tenants.for_shard().table.key_needed());
        assert!(tenants.reload(1).starts_with("nothing to reload"));
        assert!(tenants.shown().figures().is_empty());
    }

    #[test]
    fn shards_that_do_not_look_are_not_flooded_with_news() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys.toml");
        std::fs::write(&file, entry("a", "one")).unwrap();
        let mut tenants = Tenants::open(Some(&file), home.path(), 10, 1).unwrap();
        let _asleep = tenants.for_shard();
        (0..NEWS_MAX).for_each(|_| assert!(tenants.reload(1).starts_with("keys and limits of 1 tenant taken")));
        assert!(tenants.reload(1).ends_with("try again"));
    }
}
