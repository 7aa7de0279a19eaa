//! Copies of the SQLite database: made while the server runs, and put in its place while it does not.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use predictd_platform::atomic_file;
use predictd_platform::clock;
use sqlx::any::{AnyConnectOptions, install_default_drivers};
use sqlx::{AnyConnection, ConnectOptions, Connection};

use super::data_directory::{
    DATABASE_FILE_NAME, create_new_private_file, lock_data_directory, make_directory_private, path_error,
};
use super::database::{Database, sqlite_url};
use super::record::ModelRecords;
use super::store::Store;

/// Writes a copy of the database in `data` as it is at this moment to `to`, which must not exist.
///
/// # Errors
/// One sentence; nothing is left behind then.
pub async fn create_backup(data: &Path, to: &Path) -> Result<(), String> {
    let from = data.join(DATABASE_FILE_NAME);
    let part = TempDatabaseFile::new(to)?;
    copy_database(&from, &part.0).await?;
    read_records(&part.0).await.map_err(|error| format!("{}: the copy cannot be read: {error}", from.display()))?;
    part.link_to(to).map_err(|error| path_error(to, error))
}

/// Writes a copy of a database, with what is in its log, to an empty file.
async fn copy_database(from: &Path, to: &Path) -> Result<(), String> {
    if !from.is_file() {
        return Err(path_error(from, "there is no such file"));
    }
    let url = sqlite_url(from)?.replace("?mode=rwc", "?mode=rw");
    let path = to.to_str().ok_or("the path is not UTF-8")?;
    vacuum_into(&url, path).await.map_err(|error| path_error(from, error))
}

async fn vacuum_into(url: &str, path: &str) -> Result<(), sqlx::Error> {
    install_default_drivers();
    let options = url.parse::<AnyConnectOptions>()?.disable_statement_logging();
    let mut connection = AnyConnection::connect_with(&options).await?;
    sqlx::query("VACUUM INTO $1").bind(path).execute(&mut connection).await?;
    connection.close().await
}

/// Puts a copy in the place of the database in `data`, of a server that does not run. What was there is kept beside it.
/// What it names and is not in the store is returned.
///
/// # Errors
/// One sentence; the database is as it was then.
pub async fn restore_backup(from: &Path, data: &Path) -> Result<Vec<String>, String> {
    make_directory_private(data).map_err(|error| path_error(data, error))?;
    let _alone = lock_data_directory(data)?;
    let part = TempDatabaseFile::new(&data.join("predictd.db.restored"))?;
    copy_database(from, &part.0).await?;
    let records = read_records(&part.0).await.map_err(|error| path_error(from, error))?;
    replace_database(&part.0, data).map_err(|error| path_error(data, error))?;
    let store = Store::open(&data.join("store"), true).map_err(|error| path_error(data, error))?;
    Ok(missing_versions(&records, &store))
}

/// Gives a restored database the name of the one in `data`, which gets another.
fn replace_database(restored: &Path, data: &Path) -> io::Result<()> {
    File::open(restored)?.sync_all()?;
    // Nothing that was kept before is replaced: its new name has the time. The log of the one must not be taken for that
    // of the other.
    let now = clock::since_unix_epoch(clock::now()).as_millis();
    for end in ["-shm", "-wal", ""] {
        match fs::rename(
            data.join(format!("{DATABASE_FILE_NAME}{end}")),
            data.join(format!("predictd.db.replaced-{now}{end}")),
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(restored, data.join(DATABASE_FILE_NAME))?;
    atomic_file::sync_directory(data)
}

fn missing_versions(records: &ModelRecords, store: &Store) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, model) in records {
        for (version, record) in &model.versions {
            if record.digest().is_some_and(|digest| !store.version_path(&digest).is_dir()) {
                missing.push(format!("{name}/{}", version.as_str()));
            }
        }
    }
    missing
}

/// All records of a database without other users, if it is one of this program's.
async fn read_records(path: &Path) -> Result<ModelRecords, String> {
    let database = Database::open(&sqlite_url(path)?).await.map_err(|error| error.to_string())?;
    let records = database.read_state().await.map_err(|error| error.to_string());
    database.close().await;
    Ok(records?.records)
}

/// A file that is not whole yet. Dropped before it has its name, it is gone.
struct TempDatabaseFile(PathBuf);

impl TempDatabaseFile {
    /// A new one in the directory of `to`, which must not exist.
    fn new(to: &Path) -> Result<Self, String> {
        if to.exists() {
            return Err(path_error(to, "there is such a file already"));
        }
        let name = to.file_name().ok_or_else(|| path_error(to, "this is no name of a file"))?.to_string_lossy();
        let path = to.with_file_name(format!(".{name}.{}", std::process::id()));
        // SQLite writes to an empty file too. The file is private from the start.
        create_new_private_file(&path).map_err(|error| path_error(to, error))?;
        Ok(Self(path))
    }

    fn link_to(self, to: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        // Unlike a rename, this replaces nothing.
        fs::hard_link(&self.0, to)?;
        atomic_file::sync_directory(atomic_file::directory_of(to))
    }
}

impl Drop for TempDatabaseFile {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(end);
            // Most of them are not there.
            fs::remove_file(path).ok();
        }
    }
}
