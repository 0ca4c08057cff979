//! A line that breaks at a given octet: between a real device and the real server, so that either can lose its power in the middle of
//! anything that they say to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToDevice,
}

/// Where the line breaks: after so many octets in one direction of one connection, counted from 0.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub connection: usize,
    pub direction: Direction,
    pub octets: u64,
}

/// What went over a connection.
#[derive(Debug, Default)]
struct Traffic {
    to_server: AtomicU64,
    to_device: AtomicU64,
}

/// The line. At its point that connection stands still, both ways: nothing is delivered any more. Dropped, it takes all its
/// connections with it.
pub struct Line {
    pub port: u16,
    broken: Arc<Notify>,
    connections: Arc<std::sync::Mutex<Vec<Arc<Traffic>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// To the device door at `to`; it breaks at `point`, or never.
    pub async fn to(to: u16, point: Option<Point>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (broken, connections) = (Arc::new(Notify::new()), Arc::new(std::sync::Mutex::new(Vec::new())));
        let task = tokio::spawn({
            let (broken, connections) = (broken.clone(), connections.clone());
            async move {
                let count = AtomicUsize::new(0);
                // What the line carries ends with it.
                let mut carrying = JoinSet::new();
                while let Ok((device, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    let traffic = Arc::new(Traffic::default());
                    connections.lock().unwrap().push(traffic.clone());
                    let point = point.filter(|point| point.connection == number);
                    carrying.spawn(carry(device, server, point, traffic, broken.clone()));
                }
            }
        });
        Self { port, broken, connections, task }
    }

    /// Waits until the line has broken.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// How many octets each connection carried: to the server, to the device.
    pub fn traffic(&self) -> Vec<(u64, u64)> {
        let connections = self.connections.lock().unwrap();
        let octets = |count: &AtomicU64| count.load(Ordering::Relaxed);
        connections.iter().map(|traffic| (octets(&traffic.to_server), octets(&traffic.to_device))).collect()
    }
}

async fn carry(device: TcpStream, server: TcpStream, point: Option<Point>, traffic: Arc<Traffic>, broken: Arc<Notify>) {
    let limit = |direction| point.filter(|point| point.direction == direction).map(|point| point.octets);
    // The halves outlive the copying: both ends stay connected to a line on which nothing moves, as after a power cut.
    let (mut from_device, mut to_device) = device.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let stop = Notify::new();
    let one = copy(&mut from_device, &mut to_server, limit(Direction::ToServer), &traffic.to_server, &stop);
    let other = copy(&mut from_server, &mut to_device, limit(Direction::ToDevice), &traffic.to_device, &stop);
    let is_cut = tokio::select! {
        () = stop.notified() => true,
        _ = async { tokio::join!(one, other) } => false,
    };
    if is_cut {
        broken.notify_one();
        std::future::pending::<()>().await;
    }
}

async fn copy(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, limit: Option<u64>, count: &AtomicU64, stop: &Notify) {
    let mut buffer = [0; 4096];
    loop {
        let carried = count.load(Ordering::Relaxed);
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(carried));
        if left == 0 {
            stop.notify_one();
            return std::future::pending().await;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most]).await {
            Ok(read @ 1..) if to.write_all(&buffer[..read]).await.is_ok() => {
                count.fetch_add(read as u64, Ordering::Relaxed);
            }
            _ => {
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}
