//! What the repository needs of a store, asked of a real S3 server.

use lifebuoy_scenarios::{Store, World, scenario};

use crate::support::bucket;

#[test]
fn the_s3_server_keeps_the_contract() {
    scenario(async {
        let world = World::shared().await?;
        let store = Store::at(&world.s3, "contract");
        lifebuoy_repo::contract::check_store(bucket(&store)?).await?;
        Ok(())
    });
}
