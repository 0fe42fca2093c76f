//! Listening, and stopping without cutting a request off.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::Shutdown;

/// A port that is taken, before anything answers on it.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the address that a setting names. Port 0 takes any free one.
///
/// # Errors
/// Names the setting, and what to do.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    let variable = format!("TOLLGATE_{}", setting.replace('.', "__").to_uppercase());
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("{setting}: cannot listen on {address}: {error}. Choose another address with {variable}, or port 0 for any free one")
    })?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The address it really has.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the shutdown, then lets the requests under way end, within the grace period.
    ///
    /// # Errors
    /// Where the listener breaks.
    pub async fn serve(self, app: Router, shutdown: Shutdown) -> anyhow::Result<()> {
        let signal = shutdown.clone();
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(self.listener, service)
            .with_graceful_shutdown(async move { signal.begun().await });
        let cut_off = async {
            shutdown.begun().await;
            tokio::time::sleep(shutdown.grace()).await;
        };
        tokio::select! {
            result = serving => Ok(result?),
            () = cut_off => {
                tracing::warn!("requests were still under way at the end of the grace period");
                Ok(())
            }
        }
    }
}
