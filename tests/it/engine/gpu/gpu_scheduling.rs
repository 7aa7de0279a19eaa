//! Who runs on which GPU, and when.

use parking_lot::Condvar;

use super::*;

/// Holds runs.
#[derive(Default)]
pub(super) struct RunHold {
    state: Mutex<RunHoldCounts>,
    changed: Condvar,
}

#[derive(Default)]
struct RunHoldCounts {
    /// So many of those to come are held.
    to_hold: usize,
    held: usize,
    /// So many of those that are held may go on.
    released: usize,
}

impl RunHold {
    /// Holds the run that asks, if it is one of those that are waited for.
    pub(super) fn wait_if_held(&self) {
        let mut state = self.state.lock();
        if state.to_hold > 0 {
            state.to_hold -= 1;
            state.held += 1;
            self.changed.wait_while(&mut state, |state| state.released == 0);
            state.released -= 1;
            state.held -= 1;
        }
    }

    fn hold_next(&self, runs: usize) {
        self.state.lock().to_hold = runs;
    }

    async fn wait_until_held(&self, runs: usize) {
        while self.state.lock().held < runs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn release(&self, runs: usize) {
        self.state.lock().released += runs;
        self.changed.notify_all();
    }
}

/// A server with these models on made-up GPUs, and those.
async fn start_on_gpus(names: &[&str], gpus: FakeGpus, options: &[&str]) -> (Arc<TestServer>, FakeGpuBackend) {
    let models = tempfile::tempdir().unwrap();
    for name in names {
        ModelBuilder::plain().write(models.path(), name, "1");
    }
    let runtime = fake_gpu_backend(gpus);
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), options).await;
    runtime.wait_until_prepared(names.len()).await;
    (Arc::new(server), runtime)
}

/// Asks a model, and does not wait for the answer.
fn spawn_predict(server: &Arc<TestServer>, model: &str) -> tokio::task::JoinHandle<u16> {
    let server = Arc::clone(server);
    let request = json!({ "text": "10 20 30", "model": model });
    tokio::spawn(async move { server.post_json("/predict", request).await.status })
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_scheduling_picks_idle_gpu() {
    let (server, runtime) = start_on_gpus(&["m"], FakeGpus::default(), &[]).await;
    for _ in 0..20 {
        // Whoever of the threads of both GPUs rests, in whatever order.
        for answer in (0..8).map(|_| spawn_predict(&server, "m")).collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
        runtime.gpus.hold.hold_next(1);
        let held = spawn_predict(&server, "m");
        runtime.gpus.hold.wait_until_held(1).await;
        for _ in 0..3 {
            assert_eq!(spawn_predict(&server, "m").await.unwrap(), 200, "the other GPU is idle");
        }
        runtime.gpus.hold.release(1);
        assert_eq!(held.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_scheduling_picks_gpu_that_frees_first() {
    let (server, runtime) = start_on_gpus(&["a", "b"], FakeGpus::default(), &["--max-batch-size", "1"]).await;
    for _ in 0..20 {
        assert_eq!(spawn_predict(&server, "a").await.unwrap(), 200);
        runtime.gpus.hold.hold_next(2);
        let held = [spawn_predict(&server, "b"), spawn_predict(&server, "b")];
        runtime.gpus.hold.wait_until_held(2).await;
        let asked = spawn_predict(&server, "a");
        wait_until_queued(&server, "a", 1).await;
        // Either of them.
        runtime.gpus.hold.release(1);
        assert_eq!(asked.await.unwrap(), 200, "one GPU is free");
        runtime.gpus.hold.release(1);
        for answer in held {
            assert_eq!(answer.await.unwrap(), 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_scheduling_busy_model_does_not_starve_another() {
    let gpus = FakeGpus { single_gpu: true, ..FakeGpus::default() };
    let (server, runtime) = start_on_gpus(&["a", "b"], gpus, &["--max-batch-size", "1"]).await;
    let rounds = 20;
    let mut soon = 0;
    for _ in 0..rounds {
        runtime.gpus.hold.hold_next(1);
        let mut asked = vec![spawn_predict(&server, "a")];
        runtime.gpus.hold.wait_until_held(1).await;
        runtime.gpus.run_models.lock().clear();
        asked.extend((0..6).map(|_| spawn_predict(&server, "a")));
        // One may have been prepared.
        wait_until_queued(&server, "a", 5).await;
        asked.push(spawn_predict(&server, "b"));
        wait_until_queued(&server, "b", 1).await;
        // Its thread needs a moment from there to its place behind the other model's.
        tokio::time::sleep(Duration::from_millis(2)).await;
        runtime.gpus.hold.release(1);
        for answer in asked {
            assert_eq!(answer.await.unwrap(), 200);
        }
        let order = runtime.gpus.run_models.lock().clone();
        soon += usize::from(order.iter().position(|model| model == "b").unwrap() <= 1);
    }
    assert!(soon > rounds / 2, "it was the first or second only {soon} times of {rounds}");
}

/// Waits until so many texts of a model wait at least, but not for ever: they may have been prepared to run.
async fn wait_until_queued(server: &TestServer, model: &str, texts: usize) {
    let series = format!("predictd_queue_items{{model=\"{model}\",version=\"1\"}} ");
    for _ in 0..100 {
        let metrics = server.client.get(format!("http://{}/metrics", server.admin)).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let waiting = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        if waiting.parse::<usize>().unwrap() >= texts {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
