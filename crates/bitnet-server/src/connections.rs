//! Connections: each is served until its client or the server ends it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{self, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_io_timeout::TimeoutStream;

use crate::Config;

/// Connections at the same time; others wait.
const MOST: usize = 768;
/// What to wait for where the system has no room for another connection.
const FULL: Duration = Duration::from_millis(50);

/// All connections, and what listens for more.
pub(crate) struct Connections {
    router: Router,
    /// How long a client may take for the head of a request, between two requests, and for a piece of an
    /// answer.
    patience: Duration,
    /// A place for each connection.
    places: Arc<Semaphore>,
    all: Arc<GracefulShutdown>,
    listeners: JoinSet<()>,
}

impl Connections {
    pub(crate) fn new(router: Router, config: &Config) -> Connections {
        let places = Arc::new(Semaphore::new(MOST));
        let (all, listeners) = (Arc::default(), JoinSet::new());
        Connections { router, patience: config.client_timeout, places, all, listeners }
    }

    /// Serves whoever connects.
    pub(crate) fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = net::TcpListener::from_std(listener)?;
        let (router, patience) = (self.router.clone(), self.patience);
        let (all, places) = (Arc::clone(&self.all), Arc::clone(&self.places));
        self.listeners.spawn(async move {
            loop {
                // Nobody closes them.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let served = serve(stream, router.clone(), patience, all.watcher());
                        tokio::spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                    // Of one client, or of all while there are too many: both pass.
                    Err(_) => time::sleep(FULL).await,
                }
            }
        });
        Ok(())
    }

    /// Takes no more connections, and waits until there are none.
    pub(crate) async fn close(self) {
        let Connections { mut listeners, all, .. } = self;
        listeners.shutdown().await;
        // The listeners had the others.
        if let Some(all) = Arc::into_inner(all) {
            all.shutdown().await;
        }
    }
}

async fn serve(stream: TcpStream, router: Router, patience: Duration, all: Watcher) {
    // Pieces of answers are small, and are to be there at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let stream = Box::pin(stream);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(patience);
    let connection =
        server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What goes wrong on a connection is over with it.
    let _ = all.watch(connection).await;
}
