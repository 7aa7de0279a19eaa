//! Who runs on which GPU, and when.

use parking_lot::Condvar;

use super::*;

/// Holds runs.
#[derive(Default)]
pub(super) struct Hold {
    state: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    /// So many of those to come are held.
    wanted: usize,
    held: usize,
    /// So many of those that are held may go on.
    released: usize,
}

impl Hold {
    /// Holds the run that asks, if it is one of those that are waited for.
    pub(super) fn pass(&self) {
        let mut state = self.state.lock();
        if state.wanted > 0 {
            state.wanted -= 1;
            state.held += 1;
            self.changed.wait_while(&mut state, |state| state.released == 0);
            state.released -= 1;
            state.held -= 1;
        }
    }

    fn hold_the_next(&self, runs: usize) {
        self.state.lock().wanted = runs;
    }

    async fn until_held(&self, runs: usize) {
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
async fn started(names: &[&str], gpus: Gpus, options: &[&str]) -> (Arc<TestServer>, OnGpus) {
    let models = tempfile::tempdir().unwrap();
    for name in names {
        Model::plain().write(models.path(), name, "1");
    }
    let runtime = on_gpus(gpus);
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), options).await;
    runtime.until_prepared(names.len()).await;
    (Arc::new(server), runtime)
}

/// Asks a model, and does not wait for the answer.
fn asking(server: &Arc<TestServer>, model: &str) -> tokio::task::JoinHandle<u16> {
    let (server, request) = (Arc::clone(server), json!({ "text": "10 20 30", "model": model }));
    tokio::spawn(async move { server.ask("/predict", request).await.status })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_goes_to_the_gpu_that_does_nothing() {
    let (server, runtime) = started(&["m"], Gpus::default(), &[]).await;
    for _ in 0..20 {
        // Whoever of the threads of both GPUs rests, in whatever order.
        for answer in (0..8).map(|_| asking(&server, "m")).collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
        runtime.gpus.hold.hold_the_next(1);
        let held = asking(&server, "m");
        runtime.gpus.hold.until_held(1).await;
        for _ in 0..3 {
            assert_eq!(asking(&server, "m").await.unwrap(), 200, "the other GPU is idle");
        }
        runtime.gpus.hold.release(1);
        assert_eq!(held.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_goes_to_the_gpu_that_is_free_first() {
    let (server, runtime) = started(&["a", "b"], Gpus::default(), &["--max-run-texts", "1"]).await;
    for _ in 0..20 {
        assert_eq!(asking(&server, "a").await.unwrap(), 200);
        runtime.gpus.hold.hold_the_next(2);
        let held = [asking(&server, "b"), asking(&server, "b")];
        runtime.gpus.hold.until_held(2).await;
        let asked = asking(&server, "a");
        waits(&server, "a", 1).await;
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
async fn a_busy_model_gets_no_more_turns_than_another() {
    let gpus = Gpus { alone: true, ..Gpus::default() };
    let (server, runtime) = started(&["a", "b"], gpus, &["--max-run-texts", "1"]).await;
    let (rounds, mut soon) = (20, 0);
    for _ in 0..rounds {
        runtime.gpus.hold.hold_the_next(1);
        let mut asked = vec![asking(&server, "a")];
        runtime.gpus.hold.until_held(1).await;
        runtime.gpus.ran.lock().clear();
        asked.extend((0..6).map(|_| asking(&server, "a")));
        // One may have been prepared.
        waits(&server, "a", 5).await;
        asked.push(asking(&server, "b"));
        waits(&server, "b", 1).await;
        // Its thread needs a moment from there to its place behind the other model's.
        tokio::time::sleep(Duration::from_millis(2)).await;
        runtime.gpus.hold.release(1);
        for answer in asked {
            assert_eq!(answer.await.unwrap(), 200);
        }
        let order = runtime.gpus.ran.lock().clone();
        soon += usize::from(order.iter().position(|model| model == "b").unwrap() <= 1);
    }
    assert!(soon > rounds / 2, "it was the first or second only {soon} times of {rounds}");
}

/// Waits until so many texts of a model wait at least, but not for ever: they may have been prepared to run.
async fn waits(server: &TestServer, model: &str, texts: usize) {
    let series = format!("predictd_queue_texts{{model=\"{model}\",version=\"1\"}} ");
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
