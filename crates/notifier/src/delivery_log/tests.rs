//! What every store must do. Each test runs on SQLite, and on PostgreSQL with the feature `postgres-tests`.

use chrono::TimeDelta;

use super::*;

fn key(user_id: &str, transaction_id: &str) -> AlertKey {
    AlertKey {
        user_id: user_id.into(),
        transaction_id: transaction_id.into(),
        ..AlertKey::default()
    }
}

async fn store(url: &str, stop: &Shutdown) -> Store {
    let database = Database::open("notifier.delivery_log_url", url, 2)
        .await
        .unwrap();
    let (_, _, store) = open(database, Health::default(), stop.clone());
    assert!(store.prepare().await.unwrap());
    store
}

async fn known(store: &Store, sink: &str, keys: &[&AlertKey]) -> Vec<usize> {
    let (entries, _) = mpsc::channel(1);
    let delivery_log = DeliveryLog {
        store: store.clone(),
        entries,
    };
    let known = delivery_log.delivered(sink, keys).await.unwrap().unwrap();
    let mut known: Vec<usize> = known.into_iter().collect();
    known.sort_unstable();
    known
}

async fn a_row_belongs_to_one_sink_one_user_and_one_transaction(url: &str) {
    let store = store(url, &Shutdown::default()).await;
    let (a, b, c) = (key("u", "1"), key("u", "2"), key("v\"'\\ 𝄞", "1"));
    // Twice in one group, and twice in two: a row is a row.
    store
        .record(&[("x", &a), ("x", &c), ("x", &a), ("y", &b)], Utc::now())
        .await
        .unwrap();
    store.record(&[("x", &a)], Utc::now()).await.unwrap();
    assert_eq!(known(&store, "x", &[&a, &b, &c]).await, [0, 2]);
    assert_eq!(known(&store, "y", &[&a, &b, &c]).await, [1]);
    assert_eq!(known(&store, "z", &[&a, &b, &c]).await, [0_usize; 0]);
    assert_eq!(known(&store, "x", &[]).await, [0_usize; 0]);
    store.database.close().await;
}

async fn equal_ids_in_two_tenants_and_a_conflict_are_alerts_of_their_own(url: &str) {
    let store = store(url, &Shutdown::default()).await;
    let first = key("u", "1");
    let foreign = AlertKey {
        tenant: "acme".into(),
        ..first.clone()
    };
    let conflict = AlertKey {
        conflict_amount: "98765".into(),
        ..first.clone()
    };
    let all = [&first, &foreign, &conflict];
    for delivered in 0..all.len() {
        let before: Vec<usize> = (0..delivered).collect();
        assert_eq!(known(&store, "x", &all).await, before);
        let row = [("x", all[delivered])];
        store.record(&row, Utc::now()).await.unwrap();
    }
    assert_eq!(known(&store, "x", &all).await, [0, 1, 2]);
    store.database.close().await;
}

async fn rows_survive_a_restart_and_migrations_run_once(url: &str) {
    let a = key("u", "1");
    for round in 0..2 {
        let store = store(url, &Shutdown::default()).await;
        assert_eq!(known(&store, "x", &[&a]).await.len(), round);
        store.record(&[("x", &a)], Utc::now()).await.unwrap();
        store.database.close().await;
    }
}

async fn the_purge_forgets_what_is_older_and_nothing_else(url: &str) {
    let store = store(url, &Shutdown::default()).await;
    let now = Utc::now();
    let old: Vec<AlertKey> = (0..50).map(|i| key("old", &i.to_string())).collect();
    let old: Vec<(&str, &AlertKey)> = old.iter().map(|key| ("x", key)).collect();
    let young = key("young", "1");
    store.record(&old, now - TimeDelta::days(31)).await.unwrap();
    store
        .record(&[("x", &young)], now - TimeDelta::days(29))
        .await
        .unwrap();
    assert_eq!(store.purge(now - TimeDelta::days(30)).await.unwrap(), 50);
    assert_eq!(known(&store, "x", &[old[0].1, &young]).await, [1]);
    store.database.close().await;
}

async fn concurrent_records_are_all_there_when_they_say_so(url: &str) {
    let database = Database::open("notifier.delivery_log_url", url, 4)
        .await
        .unwrap();
    let (delivery_log, writer, store) = open(database, Health::default(), Shutdown::default());
    store.prepare().await.unwrap();
    let writer = tokio::spawn(writer.run());
    let keys: Vec<AlertKey> = (0..600).map(|i| key("u", &i.to_string())).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for key in keys.clone() {
        let delivery_log = delivery_log.clone();
        tasks.spawn(async move {
            assert!(delivery_log.record("x", std::iter::once(&key)).await);
            assert_eq!(
                delivery_log
                    .delivered("x", &[&key])
                    .await
                    .unwrap()
                    .unwrap()
                    .len(),
                1
            );
        });
    }
    tasks.join_all().await;
    let keys: Vec<&AlertKey> = keys.iter().collect();
    assert_eq!(known(&store, "x", &keys).await.len(), 600);
    drop(delivery_log);
    writer.await.unwrap().unwrap();
    store.database.close().await;
}

/// Each claim as a test on SQLite, and one on PostgreSQL.
macro_rules! on_every_store {
    ($($claim:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $claim() {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", directory.path().join("delivery-log.db").display());
                super::$claim(&url).await;
            })*
        }

        #[cfg(feature = "postgres-tests")]
        mod on_postgres {
            $(#[tokio::test]
            async fn $claim() {
                let Some(database) = super::own_database().await else { return };
                super::$claim(&database.url).await;
                database.remove().await;
            })*
        }
    };
}

on_every_store!(
    a_row_belongs_to_one_sink_one_user_and_one_transaction,
    equal_ids_in_two_tenants_and_a_conflict_are_alerts_of_their_own,
    rows_survive_a_restart_and_migrations_run_once,
    the_purge_forgets_what_is_older_and_nothing_else,
    concurrent_records_are_all_there_when_they_say_so,
);

#[cfg(feature = "postgres-tests")]
struct OwnDatabase {
    server: sqlx::PgPool,
    name: String,
    url: String,
}

#[cfg(feature = "postgres-tests")]
async fn own_database() -> Option<OwnDatabase> {
    let Ok(server_url) = std::env::var("TEST_POSTGRES_URL") else {
        eprintln!("skipped: TEST_POSTGRES_URL is not set");
        return None;
    };
    let server = sqlx::PgPool::connect(&server_url).await.unwrap();
    let name = format!("notifier_{:016x}", rand::random::<u64>());
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&server).await.unwrap();
    let mut url = url::Url::parse(&server_url).unwrap();
    url.set_path(&name);
    Some(OwnDatabase {
        server,
        name,
        url: url.into(),
    })
}

#[cfg(feature = "postgres-tests")]
impl OwnDatabase {
    async fn remove(self) {
        let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::query(drop).execute(&self.server).await.unwrap();
    }
}
