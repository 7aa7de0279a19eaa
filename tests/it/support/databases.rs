//! Databases for one test each: SQLite and, where `PREDICTD_TEST_POSTGRES` names a server, PostgreSQL.

use predictd::registry::database::{Database, sqlite_url};

/// The URL of a new database of a PostgreSQL server, if there is one.
pub(crate) async fn fresh_postgres() -> Option<String> {
    let server = crate::support::test_server::test_env_var("PREDICTD_TEST_POSTGRES")?;
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    let pool = sqlx::AnyPool::connect(&server).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    Some(format!("{base}/{name}"))
}

/// A database for one test.
pub(crate) struct FreshDatabase {
    pub(crate) url: String,
    pub(crate) directory: tempfile::TempDir,
}

impl FreshDatabase {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A name that a URL cannot hold as it is.
        Self { url: sqlite_url(&directory.path().join("a b?c#.db")).unwrap(), directory }
    }

    /// One of a PostgreSQL server, if there is one.
    pub(crate) async fn postgres() -> Option<Self> {
        Some(Self { url: fresh_postgres().await?, directory: tempfile::tempdir().unwrap() })
    }

    pub(crate) async fn sqlite_and_postgres() -> Vec<Self> {
        [Some(Self::sqlite()), Self::postgres().await].into_iter().flatten().collect()
    }

    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.url).await.unwrap()
    }
}
