//! The user stories of lifebuoy, one file each, on real control planes, a real
//! S3 server and the operator as its chart installs it.

#![allow(
    clippy::print_stdout,
    reason = "a story says its seed and what it skips"
)]

mod a_backup_is_one_instant;
mod a_schedule_takes_backups;
mod a_stalled_control_plane_interrupts_nothing;
mod a_stolen_writer_key_destroys_nothing;
mod a_store_creates_atomically;
mod an_application_moves_to_another_cluster;
mod bad_input_is_named;
mod killing_the_operator_loses_nothing;
mod no_operator_is_needed;
mod nothing_in_the_bucket_is_clear;
mod one_of_two_replicas_leads;
mod others_can_read_it;
mod support;
mod the_chart_installs_and_upgrades;
mod the_keeper_cares_for_the_repository;
mod the_policies_say_the_same_for_every_cloud;
mod the_rights_are_the_least;
mod the_worst_day;
mod what_exists_is_respected;
