"""What keeps a submitter from borrowing the service's rights by choosing where its files go."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

PRIVATE = "test_destinations.py::test_a_directory_of_the_service_itself"
CONFIGURED = "test_destinations.py::test_a_configured_directory_that_is_the_services_own"
NO_RIGHT = "test_destinations.py::test_a_directory_where_they_may_create_nothing"
RIGHT = "test_destinations.py::test_a_directory_where_they_may"
SWAPPED = "test_places.py::test_a_domain_whose_image_somebody_else_can_swap"

destination = partial(Cut, "hyper2kvmd/host/destination.py")
directory = partial(Cut, "hyper2kvmd/targets/directory.py")
definition = partial(Cut, "hyper2kvmd/targets/libvirt/definition.py")
devices = partial(Cut, "hyper2kvmd/targets/libvirt/devices.py")
dropped = partial(Cut, "hyper2kvmd/daemon/dropped.py")
workspace = partial(Cut, "hyper2kvmd/host/workspace.py")

SHARED = destination("require_unshared", "before output-shared", NEVER)

GUARDS: tuple[Guard, ...] = (
    # ---- the service's own directories
    *each((PRIVATE, CONFIGURED), destination("_require_apart", "before output-private", NEVER)),
    *each(
        (*cases(PRIVATE, "above"), *cases(CONFIGURED, "above")),
        destination("_require_apart", "operand 1", NEVER),
    ),
    *each(cases(CONFIGURED, "home"), destination("_require_apart", "operand 0 #1", NEVER)),
    *each(
        (*cases(PRIVATE, "home", "home-ssh"), *cases(CONFIGURED, "home")),
        Cut("hyper2kvmd/config.py", "DaemonConfig.bounds", "call _homes", "()"),
    ),
    *each(
        cases(CONFIGURED, "conversions", "below another conversion directory", "missing conversion directory"),
        Cut("hyper2kvmd/config.py", "DaemonConfig.bounds_of", "item conversion_dirs", GONE),
    ),
    *each(
        "test_destinations.py::test_a_configured_directory_where_results_may_lie",
        destination("_require_apart", "value None 0", "$0"),
    ),
    *each(
        "test_destinations.py::test_a_job_judges_the_configured_directory",
        destination("_require_allowed", "call _require_apart outer_dirs", GONE),
    ),
    *each(
        "test_destinations.py::test_a_file_of_the_services_own_is_no_submission",
        dropped("_asked_by", "argument service uid", ALWAYS),
    ),
    *each(
        "test_destinations.py::test_an_image_is_called_nothing_else",
        Cut("hyper2kvmd/spec.py", "_conflicts", "if suffix", NEVER),
    ),
    # ---- directories of others
    *each(NO_RIGHT, destination("_require_allowed", "if _may_create", NEVER)),
    *each(
        cases(NO_RIGHT, "shut-above"),
        (
            Cut("hyper2kvmd/host/way.py", "way_to", "if SEARCH", NEVER),
            destination("_may_create", "mention SEARCH #1", "0"),
        ),
    ),
    *each(cases(RIGHT, "theirs", "acl", "new"), destination("_require_allowed", "if _may_create", ALWAYS)),
    *each(
        cases(RIGHT, "configured"),
        destination("_is_configured", "return", NEVER),
    ),
    *each(
        "test_destinations.py::test_results_are_the_submitters_to_read",
        destination("share", "call grant", GONE),
        destination("_made_for", "if _is_configured", NEVER),
        destination("_make_directory", "call grant", GONE),
        destination("DIRECTORY_MODE", "value", "0o750"),
        destination("DIRECTORY_MODE", "value", "0o755"),
    ),
    *each(
        cases("test_destinations.py::test_who_reads_results_in_a_directory_of_a_group", "setgid"),
        Cut("hyper2kvmd/host/placing.py", "Placing._file", "call share_in_team", GONE),
    ),
    *each(
        cases("test_destinations.py::test_who_reads_results_in_a_directory_of_a_group", "not setgid"),
        destination("share_in_team", "operand S_ISGID", NEVER),
    ),
    *each(
        "test_destinations.py::test_a_right_for_the_submitter_is_none_for_others",
        Cut("hyper2kvmd/host/acl.py", "grant", "call _masked", "$1"),
    ),
    *each(
        "test_destinations.py::test_a_result_is_named_by_where_it_lies",
        Cut("hyper2kvmd/stages/bench.py", "with_real_directories", "call real_output_dir", "order.output_dir"),
    ),
    *each(
        "test_destinations.py::test_what_lies_in_a_closed_directory_is_not_said",
        Cut("hyper2kvmd/host/way.py", "way_to", "if SEARCH", NEVER),
    ),
    *each(
        cases("test_destinations.py::test_a_directory_of_the_service_itself", "other-name-of-incoming"),
        Cut("hyper2kvmd/config.py", "DaemonConfig.bounds_of", "item SpoolFolder", GONE),
    ),
    # ---- where it converts
    *each(
        (
            "test_destinations.py::test_a_conversion_directory_that_no_administrator_allows",
            "test_destinations.py::test_cancelling_removes_nothing_elsewhere",
        ),
        workspace("real_conversion_dir", "if allowed", NEVER),
    ),
    *each(
        "test_destinations.py::test_a_link_to_one_that_is_allowed",
        workspace(
            "real_conversion_dir",
            "operand allowed #2",
            "os.path.realpath($0) not in [os.path.realpath(one) for one in $1]",
        ),
    ),
    *each(
        "test_destinations.py::test_a_dry_run_makes_and_removes_no_output_directory",
        directory(
            "check",
            "call nearest_output",
            '(__import__("hyper2kvmd.host.destination", fromlist=["_"]).make_output($1), $0($1))[1]',
        ),
    ),
    *each(
        "test_destinations.py::test_a_conversion_directory_that_one_allows",
        Cut("hyper2kvmd/config.py", "DaemonConfig.conversion_dirs", "item allowed_conversion_dirs", GONE),
    ),
    # ---- libvirt
    *each(SWAPPED, SHARED),
    *each(cases(SWAPPED, "owner", "above"), destination("require_unshared", "operand st_uid", NEVER)),
    *each(cases(SWAPPED, "sticky"), destination("require_unshared", "operand 0 #1", ALWAYS)),
    *each(
        "test_places.py::test_a_domain_that_is_called_like_anothers_uuid",
        (
            definition("require_disks", "call virsh dumpxml", "$0($1, $2, name)"),
            definition("define", "call virsh undefine", "$0($1, name)"),
        ),
    ),
    *each(
        "test_places.py::test_an_image_that_is_swapped_for_one_with_a_backing_file",
        devices("_disks", "call SubElement backingStore", GONE),
    ),
)
