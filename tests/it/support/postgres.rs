//! Databases of the PostgreSQL server that `PREDICTD_TEST_POSTGRES` names.

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
