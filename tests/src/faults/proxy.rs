//! Toxiproxy's HTTP interface: https://github.com/Shopify/toxiproxy

use anyhow::Context as _;
use serde_json::json;

use super::schedule::{Remote, Trouble};

/// A running Toxiproxy.
#[derive(Debug)]
pub(super) struct Proxy {
    client: reqwest::Client,
    api: String,
}

impl Proxy {
    /// Speaks to the one at this address, and makes sure that it is there.
    pub(super) async fn connect(api: String) -> anyhow::Result<Self> {
        let client = reqwest::Client::new();
        let version = client.get(format!("{api}/version")).send().await;
        version.context("no Toxiproxy at TEST_TOXIPROXY")?;
        Ok(Self { client, api })
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> anyhow::Result<serde_json::Value> {
        let answer = self
            .client
            .post(format!("{}/{path}", self.api))
            .json(&body)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "Toxiproxy: {path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Puts a proxy before `upstream`; port 0 of `listen` takes any free one. Where it listens.
    pub(super) async fn add(
        &self,
        remote: Remote,
        listen: &str,
        upstream: &str,
    ) -> anyhow::Result<String> {
        let body = json!({ "name": remote.name(), "listen": listen, "upstream": upstream });
        let made = self.post("proxies", body).await?;
        Ok(made["listen"]
            .as_str()
            .context("Toxiproxy names no address")?
            .to_owned())
    }

    /// Makes trouble on the way to `remote`, in place of what trouble there is.
    pub(super) async fn trouble(&self, remote: Remote, trouble: Trouble) -> anyhow::Result<()> {
        self.heal(remote).await?;
        let (kind, attributes) = match trouble {
            Trouble::Cut => return self.enable(remote, false).await,
            Trouble::Latency(millis) => (
                "latency",
                json!({ "latency": millis, "jitter": millis / 4 }),
            ),
            // Data is dropped until the toxic goes; connections stay open as long.
            Trouble::HalfOpen => ("timeout", json!({ "timeout": 0 })),
            Trouble::SlowDrain(kib) => ("bandwidth", json!({ "rate": kib })),
        };
        for stream in ["upstream", "downstream"] {
            let body = json!({ "name": format!("trouble-{stream}"), "type": kind, "stream": stream, "attributes": attributes });
            self.post(&format!("proxies/{}/toxics", remote.name()), body)
                .await?;
        }
        Ok(())
    }

    async fn enable(&self, remote: Remote, enabled: bool) -> anyhow::Result<()> {
        let path = format!("proxies/{}", remote.name());
        self.post(&path, json!({ "enabled": enabled }))
            .await
            .map(drop)
    }

    /// Ends all trouble on the way to `remote`.
    pub(super) async fn heal(&self, remote: Remote) -> anyhow::Result<()> {
        for stream in ["upstream", "downstream"] {
            let url = format!(
                "{}/proxies/{}/toxics/trouble-{stream}",
                self.api,
                remote.name()
            );
            // 404 where there was none.
            self.client.delete(url).send().await?;
        }
        self.enable(remote, true).await
    }
}
