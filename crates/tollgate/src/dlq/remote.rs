//! `tollgate dlq` on the embedded log of a running `tollgate up`, which no other process can reach: the process that
//! runs `up` executes the command, and its output goes back.
//!
//! It listens on a Unix socket in the data directory, which only its own user can open. A request is a line of JSON. The
//! answer is a sequence of frames: a byte that names the kind, the length of the content (4 bytes, big-endian), and the
//! content. The last frame is [`DONE`] or [`FAILED`].

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};
use tollgate_log::Log;
use tollgate_service::Shutdown;

use super::{Output, execute};
use crate::commands::{Cli, Command};

/// The socket in the data directory.
pub(super) const SOCKET: &str = "up.sock";
/// Largest request.
const MAX_REQUEST_BYTES: u64 = 256 * 1024;
/// How long a request, or the reader of an answer, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Content: what the command writes to standard output.
const OUTPUT: u8 = b'o';
/// No content: the command has succeeded.
const DONE: u8 = b'd';
/// Content: why the command has failed.
const FAILED: u8 = b'f';

/// The arguments of the command, without the name of the program.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    arguments: Vec<String>,
}

/// Executes the commands of other processes.
pub(crate) struct DlqServer {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl DlqServer {
    /// Listens in this directory until the shutdown.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub(crate) fn start(directory: &Path, kafka: Log, shutdown: Shutdown) -> anyhow::Result<Self> {
        let path = directory.join(SOCKET);
        let cannot = || format!("cannot listen on {}", path.display());
        // The directory is locked: a socket that is there was left behind by a process that was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(cannot);
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(cannot)?;
        let only_owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, only_owner).with_context(cannot)?;
        let serving = tokio::spawn(serve(listener, kafka, shutdown));
        Ok(Self { path, serving })
    }

    /// Waits until the last command has ended.
    pub(crate) async fn join(self) {
        // A command that panicked has closed its connection.
        let _ = self.serving.await;
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(listener: UnixListener, kafka: Log, shutdown: Shutdown) {
    let mut commands = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => break,
        };
        let stream = accepted.and_then(|(stream, _)| stream.into_std());
        match stream {
            Ok(stream) => {
                let kafka = kafka.clone();
                commands.spawn_blocking(move || answer(stream, &kafka));
            }
            Err(error) => {
                tracing::warn!(%error, "a dlq command could not connect");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while commands.try_join_next().is_some() {}
    }
    while commands.join_next().await.is_some() {}
}

fn answer(stream: UnixStream, kafka: &Log) {
    let mut frames = Frames(stream);
    let end = match run_request(&mut frames, kafka) {
        Ok(()) => frames.send(DONE, &[]),
        Err(error) => frames.send(FAILED, format!("{error:#}").as_bytes()),
    };
    if let Err(error) = end {
        tracing::debug!(%error, "the process that sent a dlq command has ended");
    }
}

fn run_request(frames: &mut Frames, kafka: &Log) -> anyhow::Result<()> {
    let stream = &frames.0;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST_BYTES)).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line).context("the request is not valid")?;
    let typed = std::iter::once("tollgate".to_owned()).chain(request.arguments);
    let Command::Dlq(args) = Cli::try_parse_from(typed)?.command else {
        anyhow::bail!("only dlq commands are executed here");
    };
    let output = Output {
        out: frames,
        progress: false,
    };
    execute(args, kafka, output)
}

/// Writes the command's output as frames.
struct Frames(UnixStream);

impl Frames {
    fn send(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(5 + content.len());
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(content);
        self.0.write_all(&frame)
    }
}

impl Write for Frames {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        // Pieces of a moderate size, whatever the command writes at once.
        let piece = &content[..content.len().min(64 * 1024)];
        self.send(OUTPUT, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the `up` behind this socket execute the command of these arguments, and writes its output to `out`.
///
/// # Errors
/// Where it cannot be reached, or the command fails there.
pub(super) fn run(
    socket: &Path,
    arguments: Vec<String>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "cannot reach the running `tollgate up` at {}",
            socket.display()
        )
    })?;
    let request = Request { arguments };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    let broken = "the connection to the running `tollgate up` has ended";
    stream.write_all(&line).context(broken)?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).context(broken)?;
        let [kind, length @ ..] = head;
        let mut content = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut content).context(broken)?;
        match kind {
            OUTPUT => out.write_all(&content).context("standard output")?,
            DONE => return out.flush().context("standard output"),
            _ => {
                out.flush().context("standard output")?;
                anyhow::bail!("{}", String::from_utf8_lossy(&content));
            }
        }
    }
}
