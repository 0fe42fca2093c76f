//! The processes, each in its place, which is empty while it is down.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::schedule::Program;
use crate::deployment::Deployment;
use crate::process::Service;

/// How long a service may take to be ready once nothing is amiss.
const READY: Duration = Duration::from_secs(60);

/// A place for one process.
#[derive(Debug)]
struct Place {
    program: Program,
    number: usize,
    running: Option<Service>,
    /// It got SIGTERM, so that its end is no mistake.
    ending: bool,
}

/// All processes of a run.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    deployment: &'a Deployment,
    logs: PathBuf,
    places: Vec<Place>,
    ingest: watch::Sender<Option<String>>,
}

impl<'a> Cast<'a> {
    pub(super) fn new(deployment: &'a Deployment, logs: PathBuf) -> Self {
        let places = Program::ALL.into_iter().flat_map(|program| {
            // One place more, for an instance that joins.
            (0..=program.instances()).map(move |number| Place {
                program,
                number,
                running: None,
                ending: false,
            })
        });
        Self {
            deployment,
            logs,
            places: places.collect(),
            ingest: watch::Sender::new(None),
        }
    }

    /// Where ingest is.
    pub(super) fn ingest(&self) -> watch::Receiver<Option<String>> {
        self.ingest.subscribe()
    }

    fn place(&mut self, program: Program, number: usize) -> anyhow::Result<&mut Place> {
        let mut places = self.places.iter_mut();
        let place = places.find(|place| place.program == program && place.number == number);
        place.context("no such place")
    }

    /// Starts every process that has a place of its own, and waits until all are ready.
    pub(super) async fn start_all(&mut self) -> anyhow::Result<()> {
        for program in Program::ALL {
            for number in 0..program.instances() {
                self.start(program, number).await?;
            }
        }
        self.ready().await
    }

    /// Starts a process, unless it runs.
    pub(super) async fn start(&mut self, program: Program, number: usize) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{}-{number}.log", program.name()));
        let deployment = self.deployment;
        let place = self.place(program, number)?;
        if place.running.is_none() {
            place.running = Some(deployment.spawn_logging(program.name(), &log)?);
            place.ending = false;
        }
        Ok(())
    }

    /// Kills a process. Whether it ran.
    pub(super) fn kill(&mut self, program: Program, number: usize) -> anyhow::Result<bool> {
        if program == Program::Ingest {
            self.ingest.send_replace(None);
        }
        match self.place(program, number)?.running.take() {
            Some(service) => service.kill().map(|()| true),
            None => Ok(false),
        }
    }

    /// Tells a process to end. False where it is too young to have heard it.
    pub(super) fn terminate(&mut self, program: Program, number: usize) -> anyhow::Result<bool> {
        let place = self.place(program, number)?;
        let admin = format!("{} admin", program.name());
        let Some(service) = place
            .running
            .as_ref()
            .filter(|service| service.known_address(&admin).is_some())
        else {
            return Ok(false);
        };
        service.signal("TERM")?;
        place.ending = true;
        if program == Program::Ingest {
            self.ingest.send_replace(None);
        }
        Ok(true)
    }

    /// Whether a process that got SIGTERM has ended, and left its place.
    pub(super) fn ended(&mut self, program: Program, number: usize) -> anyhow::Result<bool> {
        let place = self.place(program, number)?;
        let ended = match &mut place.running {
            Some(service) => service.has_stopped()?,
            None => true,
        };
        if ended {
            place.running = None;
        }
        Ok(ended)
    }

    /// Stops a process, or lets it go on.
    pub(super) fn freeze(
        &mut self,
        program: Program,
        number: usize,
        frozen: bool,
    ) -> anyhow::Result<()> {
        match &self.place(program, number)?.running {
            Some(service) => service.signal(if frozen { "STOP" } else { "CONT" }),
            None => Ok(()),
        }
    }

    /// Looks after the processes: one that has ended by itself is a mistake of its own.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        for place in &mut self.places {
            if let Some(service) = place.running.as_mut().filter(|_| !place.ending) {
                service
                    .ensure_running()
                    .with_context(|| format!("see {}", self.logs.display()))?;
                if place.program == Program::Ingest && self.ingest.borrow().is_none() {
                    self.ingest.send_replace(service.known_address("ingest"));
                }
            }
        }
        Ok(())
    }

    /// Waits until every process is ready.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        for place in &mut self.places {
            if let Some(service) = &mut place.running {
                service.ready(READY).await?;
            }
        }
        self.look()
    }

    /// Stops every process, as one would.
    pub(super) async fn stop_all(mut self) -> anyhow::Result<()> {
        for place in &mut self.places {
            if let Some(service) = place.running.take() {
                service.stop().await?;
            }
        }
        Ok(())
    }
}
