//! The key file: tenants, the hashes of their keys, their limits. Main and control thread; reads one file, and `tidegate key new`
//! makes a key.
//!
//! ```toml
//! [[tenant]]
//! name = "acme"
//! key_sha256 = ["…"]          # as `tidegate key new acme` prints it; of a key of at most KEY_BYTES_MAX bytes
//! events_per_second = 20000   # 0, or absent: no limit
//! burst = 60000               # absent: as many as in a second
//! bytes_per_second = "20MiB"  # of bodies as they come
//! bytes_burst = "60MiB"
//! weight = 1                  # share when the server is the bottleneck, against others' weights
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::quantity::ByteSize;
use super::tenant_numbers::{NumbersError, TenantNumbers};
use crate::admit::{Digest, Limit, Rate, Tenant, TenantTable, WEIGHT_MAX, digest_of};

/// Longest key file: a thousand bytes for each of as many tenants as can be numbered. What is longer is another file, given by mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest name: it is a label of metrics and a column of tables.
const NAME_BYTES_MAX: usize = 64;
/// The name of those who came without a key.
pub const ANONYMOUS: &str = "anonymous";
/// What made keys begin with, so that a leaked one is known for what it is.
const KEY_PREFIX: &str = "tg_";
/// Randomness of a made key.
const KEY_RANDOM_BYTES: usize = 32;

/// What the file may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    tenant: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    key_sha256: Vec<String>,
    #[serde(default)]
    events_per_second: u64,
    burst: Option<u64>,
    #[serde(default)]
    bytes_per_second: Option<ByteSize>,
    #[serde(default)]
    bytes_burst: Option<ByteSize>,
    weight: Option<u32>,
}

/// Why there is no table of tenants.
#[derive(Debug)]
pub enum KeysError {
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not what a key file is.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Tenants cannot be numbered.
    Numbers(NumbersError),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => write!(f, "the key file {} cannot be read: {error}", path.display()),
            Self::Invalid { path, problem } => write!(f, "the key file {}: {problem}", path.display()),
            Self::Numbers(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeysError {}

/// Tenants as a file has them, not numbered yet.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    entries: Vec<(Entry, Vec<Digest>)>,
}

impl Keys {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let unreadable = |error| KeysError::Unreadable { path: path.to_owned(), error };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other(format!("it is longer than {}", ByteSize(FILE_BYTES_MAX)))));
        }
        Self::parse(&text, path)
    }

    /// Reads and checks the file at `path` again. Not what is no file (any more): reading a pipe would wait for somebody to write.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read_again(path: &Path) -> Result<Self, KeysError> {
        let unreadable = |error| KeysError::Unreadable { path: path.to_owned(), error };
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("not a regular file, so it is not read again")));
        }
        Self::read(path)
    }

    /// Checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`KeysError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, KeysError> {
        let invalid = |problem: String| KeysError::Invalid { path: path.to_owned(), problem };
        let file: KeyFile = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
            invalid(format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', " ")))
        })?;
        if file.tenant.is_empty() {
            // Without tenants no key would be needed: what was meant to lock the door would open it.
            return Err(invalid("it names no [[tenant]], so nobody could be let in".to_owned()));
        }
        let mut names = BTreeSet::new();
        let mut entries = Vec::with_capacity(file.tenant.len());
        for entry in file.tenant {
            let name = entry.name.clone();
            let of_tenant = |problem: String| invalid(format!("tenant {name}: {problem}"));
            check_name(&entry.name).map_err(of_tenant)?;
            if !names.insert(entry.name.clone()) {
                return Err(of_tenant("it is there twice: give all its keys in one list".to_owned()));
            }
            check_limits(&entry).map_err(of_tenant)?;
            if entry.key_sha256.is_empty() {
                // Of a file with him alone nobody would be let in, and of any file he would not be.
                return Err(of_tenant(format!(
                    "he has no key, so he could not send: add key_sha256 as 'tidegate key new {name}' prints it, or leave him out"
                )));
            }
            let keys = entry.key_sha256.iter().map(|key| digest(key)).collect::<Result<_, _>>().map_err(of_tenant)?;
            entries.push((entry, keys));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The table number `generation` of these tenants, each numbered as `numbers` knows him or will from now on. Nobody has used
    /// anything of his limits.
    ///
    /// # Errors
    /// When a key is there twice, or there are no numbers left.
    pub fn table(&self, generation: u64, numbers: &mut TenantNumbers) -> Result<TenantTable, KeysError> {
        let names = self.entries.iter().map(|(entry, _)| entry.name.as_str());
        let ids = numbers.of_all(names).map_err(KeysError::Numbers)?;
        let tenants = self.entries.iter().zip(ids).map(|((entry, keys), id)| {
            let limit = |per_second: u64, burst: Option<u64>| {
                let rate = Rate { per_second, burst: burst.unwrap_or(per_second) };
                (per_second > 0).then(|| Limit::new(rate, generation))
            };
            let tenant = Tenant {
                id,
                name: entry.name.as_str().into(),
                weight: entry.weight.unwrap_or(1),
                events: limit(entry.events_per_second, entry.burst),
                bytes: limit(entry.bytes_per_second.map_or(0, |bytes| bytes.0), entry.bytes_burst.map(|bytes| bytes.0)),
            };
            (tenant, keys.clone())
        });
        TenantTable::new(generation, tenants.collect())
            .map_err(|error| KeysError::Invalid { path: self.path.clone(), problem: error.to_string() })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return Err(format!("a name is 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'"));
    }
    if name == ANONYMOUS {
        return Err("that is the name of those who come without a key: choose another".to_owned());
    }
    Ok(())
}

fn check_limits(entry: &Entry) -> Result<(), String> {
    let without = |per_second: u64, burst: bool, name: &str| {
        if per_second == 0 && burst {
            Err(format!("{name} without its limit per second limits nothing"))
        } else {
            Ok(())
        }
    };
    without(entry.events_per_second, entry.burst.is_some(), "burst")?;
    without(entry.bytes_per_second.map_or(0, |bytes| bytes.0), entry.bytes_burst.is_some(), "bytes_burst")?;
    if entry.burst == Some(0) || entry.bytes_burst == Some(ByteSize(0)) {
        return Err("a burst of 0 would let nothing through: leave it out, or give at least 1".to_owned());
    }
    if !(1..=WEIGHT_MAX).contains(&entry.weight.unwrap_or(1)) {
        return Err(format!("weight = {}: give 1 to {WEIGHT_MAX}", entry.weight.unwrap_or(1)));
    }
    Ok(())
}

fn digest(text: &str) -> Result<Digest, String> {
    let problem =
        || format!("key_sha256 '{text}' is no SHA-256: expected 64 hexadecimal digits, as 'tidegate key new' prints");
    let digits = text.as_bytes();
    if digits.len() != 2 * size_of::<Digest>() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(problem());
    }
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| problem())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| problem())?;
    }
    Ok(digest)
}

/// A key just made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What the client sends. Kept nowhere.
    pub key: String,
    /// Its entry in the key file.
    pub entry: String,
}

/// Makes a key for the tenant called `name`.
///
/// # Errors
/// When the name is none, or the system has no randomness.
pub fn make_key(name: &str) -> Result<NewKey, String> {
    check_name(name)?;
    let mut random = [0; KEY_RANDOM_BYTES];
    // Always there on Linux, and never short once the system has started: random(4).
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    let key = format!("{KEY_PREFIX}{}", text_of(&random));
    let digest = hexadecimal(&digest_of(key.as_bytes()));
    let entry = format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = [\"{digest}\"]\n");
    Ok(NewKey { key, entry })
}

/// Letters and digits that survive every header, shell and URL: 6 bits each (RFC 4648 §5, unpadded).
fn text_of(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).for_each(|at| text.push(char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    text
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::Credential;
    use crate::base::TenantId;

    fn parse(text: &str) -> Result<Keys, String> {
        Keys::parse(text, Path::new("keys.toml")).map_err(|error| error.to_string())
    }

    fn table(text: &str) -> Result<TenantTable, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut numbers = TenantNumbers::open(directory.path(), 100).unwrap();
        parse(text)?.table(1, &mut numbers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_made_key_opens_the_door_that_its_entry_describes() {
        let new = make_key("acme").unwrap();
        let table = table(&new.entry).unwrap();
        let slot = table.admit(Some(new.key.as_bytes()), &mut Credential::default()).unwrap();
        assert_eq!((&*table.tenant(slot).name, table.tenant(slot).id), ("acme", TenantId(1)));
        assert!(table.admit(Some(make_key("acme").unwrap().key.as_bytes()), &mut Credential::default()).is_err());
        assert!(new.key.starts_with("tg_") && new.key.len() == 46, "{}", new.key);
    }

    #[test]
    fn the_text_of_bytes_is_base64url() {
        for (bytes, text) in [(&b"fo"[..], "Zm8"), (b"foo", "Zm9v"), (b"foob", "Zm9vYg"), (b"\xfb\xff", "-_8")] {
            assert_eq!(text_of(bytes), text);
        }
    }

    /// The entry of `name` with a key of his own and `more`.
    fn entry(name: &str, more: &str) -> String {
        let key = hexadecimal(&digest_of(name.as_bytes()));
        format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = [\"{key}\"]\n{more}\n")
    }

    #[test]
    fn limits_are_read_and_have_defaults() {
        let all =
            "events_per_second = 20000\nburst = 60000\nbytes_per_second = \"1MiB\"\nbytes_burst = 5000000\nweight = 7";
        let text =
            entry("all", all) + &entry("some", "events_per_second = 10") + &entry("none", "events_per_second = 0");
        let table = table(&text).unwrap();
        let [all, some, none] = table.named() else { panic!("three tenants") };
        let limit = |per_second, burst| Some(Limit::new(Rate { per_second, burst }, 1));
        assert_eq!(all.events, limit(20_000, 60_000));
        assert_eq!(all.bytes, limit(1 << 20, 5_000_000));
        assert_eq!((all.weight, some.weight), (7, 1));
        assert_eq!((some.events, some.bytes), (limit(10, 10), None));
        assert_eq!((none.events, none.bytes), (None, None));
    }

    #[test]
    fn what_is_wrong_is_refused_and_said_with_its_place() {
        let tenant = |more: &str| entry("a", more);
        let one = hexadecimal(&digest_of(b"a"));
        let keys = |keys: &str| format!("[[tenant]]\nname = \"a\"\nkey_sha256 = [{keys}]\n");
        for (text, part) in [
            (String::new(), "it names no [[tenant]], so nobody could be let in"),
            ("[[tenant]]\n".to_owned(), "line 1: missing field `name`"),
            (tenant("events_per_seconds = 1"), "line 4: unknown field `events_per_seconds`"),
            (tenant("[server]"), "unknown field `server`"),
            (tenant("") + &tenant(""), "tenant a: it is there twice"),
            (entry("a b", ""), "tenant a b: a name is 1 to 64 letters"),
            (entry("anonymous", ""), "choose another"),
            (keys("\"abc\""), "tenant a: key_sha256 'abc' is no SHA-256"),
            (
                keys(""),
                "tenant a: he has no key, so he could not send: add key_sha256 as 'tidegate key new a' prints it",
            ),
            ("[[tenant]]\nname = \"a\"\n".to_owned() + &entry("b", ""), "tenant a: he has no key"),
            (keys(&format!("\"{one}\", \"{one}\"")), "tenant a has the same key twice: leave it out once"),
            (tenant("burst = 5"), "burst without its limit per second"),
            (tenant("bytes_burst = 5"), "bytes_burst without its limit per second"),
            (tenant("events_per_second = 1\nburst = 0"), "a burst of 0 would let nothing through"),
            (tenant("weight = 0"), "weight = 0: give 1 to 1000"),
            (
                format!("{}[[tenant]]\nname = \"b\"\nkey_sha256 = [\"{}\"]", tenant(""), one.to_uppercase()),
                "tenants a and b have the same key",
            ),
        ] {
            let error = table(&text).unwrap_err();
            assert!(error.starts_with("the key file keys.toml: ") && error.contains(part), "{error}");
        }
        let missing = Keys::read(Path::new("/nowhere/keys.toml")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/keys.toml cannot be read"), "{missing}");
        let long = tempfile::NamedTempFile::new().unwrap();
        for (bytes, part) in
            [(FILE_BYTES_MAX, "it names no [[tenant]]"), (FILE_BYTES_MAX + 1, "it is longer than 64MiB")]
        {
            std::fs::write(long.path(), vec![b'#'; bytes as usize]).unwrap();
            let error = Keys::read(long.path()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let special = Keys::read_again(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(special.contains("/dev/null cannot be read: not a regular file"), "{special}");
    }
}
