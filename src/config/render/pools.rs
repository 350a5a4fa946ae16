//! The pools and the names of models.

use super::Text;
use crate::{
    forward::{Aim, Alias, Api, Credential},
    types::{BaseUrl, Key},
};

impl Text {
    pub(super) fn pool(
        &mut self,
        name: &str,
        base_url: &BaseUrl,
        api: &Api,
        has_proxy: bool,
        keys: &[Key],
        places: &[String],
    ) {
        self.section("[[pools]]");
        self.string("name", name);
        self.string("base_url", base_url);
        self.api(api, keys.first().map_or("", |key| &key.settings().prefix));
        if has_proxy {
            self.comment("proxy_url: one of its own");
        }
        for (index, key) in keys.iter().enumerate() {
            self.section("[[pools.keys]]");
            self.key(key, places.get(index));
        }
    }

    /// What is said of an API whose keys stand behind `prefix`. Values of headers and parameters may be credentials.
    fn api(&mut self, api: &Api, prefix: &str) {
        self.string("dialect", api.dialect);
        if api.credential != Credential::of(api.dialect) {
            match &api.credential {
                Credential::Bearer => {}
                Credential::Header(name) => {
                    let prefix =
                        if prefix.is_empty() { String::new() } else { format!(", prefix = {prefix:?}") };
                    self.plain("credential", format_args!("{{ header = {:?}{prefix} }}", name.as_str()));
                }
                Credential::Query(name) => self.plain("credential", format_args!("{{ query = {name:?} }}")),
            }
        }
        for (dialect, path) in &api.also {
            self.comment(&format!("{dialect} at {path}"));
        }
        if !api.headers.is_empty() {
            let names = api.headers.keys().map(|name| name.as_str().to_owned());
            self.comment(&format!("headers: {}", names.collect::<Vec<_>>().join(", ")));
        }
        if !api.query.is_empty() {
            let names: Vec<_> = api.query.iter().map(|parameter| parameter.name()).collect();
            self.comment(&format!("query: {}", names.join(", ")));
        }
        if !api.methods.is_empty() {
            self.list("methods", api.methods.iter().map(ToString::to_string));
        }
        if let Some(version) = &api.api_version {
            self.string("api_version", version);
        }
        let mut deployments: Vec<_> = api.deployments.iter().collect();
        deployments.sort();
        for (model, name) in deployments {
            self.comment(&format!("{model} is the deployment {name}"));
        }
    }

    pub(super) fn alias(&mut self, alias: &Alias) {
        let shown = |aim: &Aim| match &aim.pool {
            Some(pool) => format!("{pool}/{}", aim.model),
            None => aim.model.to_string(),
        };
        self.section("[[models]]");
        self.string("name", &alias.name);
        let mut targets = alias.targets.iter().map(shown);
        if let Some(target) = targets.next() {
            self.string("target", target);
        }
        self.list("fallbacks", targets);
    }
}
