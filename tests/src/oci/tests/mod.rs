//! Claims about the stand-in, made by a client that shares no code with it.

mod client;
mod control;
mod faults;
mod instance;
mod monitoring;
mod notifications;
mod signature;
mod tokens;

use std::sync::LazyLock;

use openssl::pkey::{PKey, Private};

use self::client::Draft;
use super::{Config, StandIn, UserKey, make_user};

/// As long as they are.
const TENANCY: &str =
    "ocid1.tenancy.oc1..aaaaaaaabcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwxyz";
const TOPIC: &str = "/20181201/topics/ocid1.onstopic.oc1..topic/messages";

/// Who signs, and where to.
struct Client {
    key_id: String,
    key: PKey<Private>,
    host: String,
}

impl Client {
    /// A signed POST of JSON.
    fn post(&self, target: &str, body: &str) -> Draft {
        Draft::post(&self.host, target, body).signed(&self.key_id, &self.key)
    }
}

/// A stand-in of this configuration and one user who may call it.
async fn started(mut config: Config) -> (StandIn, Client) {
    static USER: LazyLock<(UserKey, String)> =
        LazyLock::new(|| make_user(TENANCY, "ocid1.user.oc1..user").unwrap());
    let (user, pem) = &*USER;
    config.users.push(user.clone());
    config.tenancy = TENANCY.to_owned();
    let stand_in = StandIn::start(config).await.unwrap();
    let client = Client {
        key_id: user.key_id.clone(),
        key: PKey::private_key_from_pem(pem.as_bytes()).unwrap(),
        host: host(&stand_in.endpoint()),
    };
    (stand_in, client)
}

fn host(endpoint: &str) -> String {
    endpoint.split_once("://").unwrap().1.to_owned()
}
