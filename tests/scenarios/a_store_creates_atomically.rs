//! What the repository needs of a store, asked of a real S3 server.

use anyhow::Result;
use lifebuoy_repo::{Credentials, Location};
use lifebuoy_scenarios::{World, scenario};

#[test]
fn the_s3_server_keeps_the_contract() {
    scenario(async {
        let world = World::shared().await?;
        let location = Location {
            url: format!("{}/contract", world.s3.url().trim_end_matches('/')),
            endpoint: Some(world.s3.endpoint()),
            region: Some(lifebuoy_testkit::s3::REGION.to_owned()),
            ca_pem: None,
            proxy: None,
            allow_http: true,
        };
        let store = location.open(&Credentials::from(world.store.credentials.clone()))?;
        lifebuoy_repo::contract::store(store).await;
        Result::Ok(())
    });
}
