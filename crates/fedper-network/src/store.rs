//! What a device keeps, on disk: its identity and, for each federation, its personal layers.
//!
//! One `redb` file. What a round changes is one transaction, committed before the answer is sent: after a kill at any
//! moment the device has either not trained in that round or has trained in it with all of its devices. Of each device two
//! states are kept, before and after the last round it trained in. So a round that is asked for again (the server was
//! killed, or the device before its answer arrived) begins where it began the first time, and ends the same, bit for bit.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use fedper_core::params::Params;
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::Kept;
use fedper_flower::identity::Identity;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use fedper_run::error::Error;
use fedper_run::rundir::write_atomically;

/// `"identity"` -> private key, PEM; `"node"` -> node id, little-endian; `"classes-"` and a federation -> its classes, JSON.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// (federation, algorithm, device) -> [`State`] after the last round it trained in.
const NOW: TableDefinition<'_, (&str, &str, u64), &[u8]> = TableDefinition::new("personal");
/// The same before that round; absent if that was its first.
const BEFORE: TableDefinition<'_, (&str, &str, u64), &[u8]> = TableDefinition::new("personal-before");

const FILE: &str = "device.redb";
const PENDING: &str = "pending";
const CACHE: usize = 16 << 20;

/// Whose states: a federation, and its algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The name that the server has given it.
    pub federation: &'a str,
    /// Such as `fedper`.
    pub algorithm: &'a str,
}

/// What a device keeps after a round.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The last round it trained in.
    pub round: u32,
    /// Its personal layers then.
    pub personal: Kept,
}

/// An open store. No other process can open it meanwhile.
pub struct Store {
    folder: PathBuf,
    path: PathBuf,
    database: Database,
}

/// Makes a folder that only its user can look into, where the system knows users: it is to hold a private key and what a
/// device has learned of its own. A folder that is there stays as it is.
fn create_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

impl Store {
    /// Opens the store in `folder`, or begins one.
    ///
    /// # Errors
    /// If it cannot be read or written, or another process has it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        create_private(folder).map_err(Error::file("create", folder))?;
        let path = folder.join(FILE);
        let create = || Database::builder().set_cache_size(CACHE).create(&path);
        let database = match create() {
            Err(error)
                if !matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) && never_begun(&path) =>
            {
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
                create()
            }
            opened => opened,
        };
        let database = match database {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(Error::Foreign {
                    path,
                    reason: "another process is this device; give each its own --state".into(),
                });
            }
            Err(error) => return Err(failed(&path, error)),
        };
        let store = Self { folder: folder.to_owned(), path, database };
        // Whoever reads finds every table.
        store.write(|transaction| {
            transaction.open_table(META)?;
            transaction.open_table(NOW)?;
            transaction.open_table(BEFORE)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let run = || -> Result<T, redb::Error> {
            let transaction = self.database.begin_write()?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| failed(&self.path, error))
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        read().map_err(|error| failed(&self.path, error))
    }

    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.open_table(META)?.insert(key, value)?;
            Ok(())
        })
    }

    /// The key that this device made for itself; makes one the first time.
    ///
    /// # Errors
    /// If it cannot be read or kept.
    pub fn identity(&self) -> Result<Identity, crate::Error> {
        if let Some(pem) = self.meta("identity")? {
            return Ok(Identity::from_pem(&String::from_utf8_lossy(&pem))?);
        }
        let identity = Identity::generate()?;
        self.set_meta("identity", identity.to_pem()?.as_bytes())?;
        Ok(identity)
    }

    /// The number that the SuperLink knows this device by, if it is known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn node(&self) -> Result<Option<u64>, Error> {
        let bytes = self.meta("node")?;
        Ok(bytes.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))))
    }

    /// Keeps [`Store::node`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_node(&self, node: u64) -> Result<(), Error> {
        self.set_meta("node", &node.to_le_bytes())
    }

    /// The classes of the images that this device has trained on in `federation`, by label.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn classes(&self, federation: &str) -> Result<Option<Vec<String>>, Error> {
        let bytes = self.meta(&classes_of(federation))?;
        let foreign = |error: serde_json::Error| Error::Foreign {
            path: self.path.clone(),
            reason: format!("the classes of {federation}: {error}"),
        };
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(foreign)).transpose()
    }

    /// Of how many federations the classes are known: of all that this device has trained in.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn count_federations(&self) -> Result<usize, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            // What follows `-` in ASCII ends the names.
            Ok(table.range("classes-".."classes.")?.count())
        };
        read().map_err(|error| failed(&self.path, error))
    }

    /// Keeps [`Store::classes`].
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn set_classes(&self, federation: &str, classes: &[String]) -> Result<(), Error> {
        self.set_meta(&classes_of(federation), &serde_json::to_vec(classes).expect("plain data"))
    }

    /// The message that was being answered when the process ended. A file of its own: it is worth a round at most, and
    /// need not outlive a power failure.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn pending(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join(PENDING);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    /// Sets or clears [`Store::pending`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_pending(&self, message: Option<&[u8]>) -> Result<(), Error> {
        let path = self.folder.join(PENDING);
        match message {
            Some(bytes) => Ok(write_atomically(&path, bytes)?),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::file("remove", &path)(error))
                }
                _ => Ok(()),
            },
        }
    }

    /// What `device` keeps now; `None` if it has never trained.
    ///
    /// # Errors
    /// If it cannot be read, or is not what `parts` asks for.
    pub fn state(&self, scope: Scope<'_>, device: DeviceId, parts: &Parts) -> Result<Option<State>, Error> {
        self.read(NOW, scope, device, parts)
    }

    /// The federations that something is kept of.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn federations(&self) -> Result<Vec<String>, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(NOW)?;
            let mut names: Vec<String> = Vec::new();
            for entry in table.iter()? {
                let (key, _) = entry?;
                let name = key.value().0;
                // Keys are sorted.
                if names.last().is_none_or(|last| last != name) {
                    names.push(name.to_owned());
                }
            }
            Ok(names)
        };
        read().map_err(|error| failed(&self.path, error))
    }

    /// The personal layers that `device` begins `round` with; `None` if those follow from the seed.
    ///
    /// # Errors
    /// If they cannot be read, or are not what `parts` asks for.
    pub fn at_the_beginning_of(
        &self,
        round: u32,
        scope: Scope<'_>,
        device: DeviceId,
        parts: &Parts,
    ) -> Result<Option<Kept>, Error> {
        let state = match self.read(NOW, scope, device, parts)? {
            Some(state) if state.round == round => self.read(BEFORE, scope, device, parts)?,
            state => state,
        };
        Ok(state.map(|state| state.personal))
    }

    /// What `device` keeps after `counted`, the last round of it that counted, whatever came since; `None` if none has, so that
    /// it follows from the seed. If that state is lost, the newest before it.
    ///
    /// # Errors
    /// If it cannot be read, or is not what `parts` asks for.
    pub fn after(
        &self,
        counted: u32,
        scope: Scope<'_>,
        device: DeviceId,
        parts: &Parts,
    ) -> Result<Option<Kept>, Error> {
        let fits = |state: &State| state.round <= counted && counted > 0;
        let state = match self.read(NOW, scope, device, parts)?.filter(fits) {
            None => self.read(BEFORE, scope, device, parts)?.filter(fits),
            now => now,
        };
        Ok(state.map(|state| state.personal))
    }

    fn read(
        &self,
        table: TableDefinition<'_, (&'static str, &'static str, u64), &'static [u8]>,
        scope: Scope<'_>,
        device: DeviceId,
        parts: &Parts,
    ) -> Result<Option<State>, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(table)?;
            let value = table.get((scope.federation, scope.algorithm, device.0))?;
            Ok(value.map(|value| value.value().to_vec()))
        };
        let bytes = read().map_err(|error| failed(&self.path, error))?;
        bytes.map(|bytes| self.decode(&bytes, parts)).transpose()
    }

    fn decode(&self, bytes: &[u8], parts: &Parts) -> Result<State, Error> {
        let foreign = |reason: String| Error::Foreign { path: self.path.clone(), reason };
        let layout = parts.kept.layout();
        let header = bytes.split_first_chunk::<4>().and_then(|(round, rest)| {
            let (fingerprint, values) = rest.split_first_chunk::<8>()?;
            Some((u32::from_le_bytes(*round), u64::from_le_bytes(*fingerprint), values))
        });
        let Some((round, fingerprint, values)) = header else {
            return Err(foreign("a state that is cut short".into()));
        };
        if fingerprint != layout.fingerprint() {
            return Err(foreign("kept by another method, or of another network or cut".into()));
        }
        let params =
            Params::from_le_bytes(layout.clone(), values).map_err(|error| foreign(error.to_string()))?;
        let personal = parts.adopt_kept(params).expect("made with the kept layout");
        Ok(State { round, personal })
    }

    /// Keeps what devices have after `round`, all of them or none. Each says, if it knows, which round's state it began with.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep<'a>(
        &self,
        round: u32,
        scope: Scope<'_>,
        states: impl IntoIterator<Item = (DeviceId, Option<u32>, &'a Kept)>,
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut now = transaction.open_table(NOW)?;
            let mut before = transaction.open_table(BEFORE)?;
            for (device, counted, personal) in states {
                let key = (scope.federation, scope.algorithm, device.0);
                let last = now.get(key)?.map(|value| value.value().to_vec());
                // Of what counts not, nothing stays. Trained in this round before: what was before it stays.
                let is_of =
                    |round: u32| last.as_ref().is_some_and(|last| last.starts_with(&round.to_le_bytes()));
                let began_with_last = counted.map_or(!is_of(round), is_of);
                match &last {
                    Some(last) if began_with_last => drop(before.insert(key, last.as_slice())?),
                    _ if counted == Some(0) => drop(before.remove(key)?),
                    _ => {}
                }
                let mut bytes = round.to_le_bytes().to_vec();
                bytes.extend_from_slice(&personal.params().layout().fingerprint().to_le_bytes());
                bytes.extend_from_slice(&personal.params().to_le_bytes());
                now.insert(key, bytes.as_slice())?;
            }
            Ok(())
        })
    }
}

fn classes_of(federation: &str) -> String {
    format!("classes-{federation}")
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(source) => Error::File { verb: "write", path: path.to_owned(), source },
        other => Error::Foreign { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Whether the file at `path` is what a kill in the middle of its making leaves: the database begins its file with
/// zeros, and puts its own mark there when everything else is written. `create` would take it for another program's.
fn never_begun(path: &Path) -> bool {
    let mut first = [1; 9];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == [0; 9]
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
