"""What keeps a submitter from borrowing the service's rights by choosing where its files go."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

PRIVATE = "test_destinations.py::test_a_directory_of_the_service_itself"
CONFIGURED = "test_destinations.py::test_a_configured_directory_that_is_the_services_own"
NO_RIGHT = "test_destinations.py::test_a_directory_where_they_may_create_nothing"
RIGHT = "test_destinations.py::test_a_directory_where_they_may"
SWAPPED = "test_places.py::test_a_domain_whose_image_somebody_else_can_swap"

destination = partial(Cut, "hyper2kvmd/host/destination.py")
plan = partial(Cut, "hyper2kvmd/stages/plan.py")
definition = partial(Cut, "hyper2kvmd/targets/libvirt/definition.py")
domain = partial(Cut, "hyper2kvmd/targets/libvirt/domain.py")
scheduler = partial(Cut, "hyper2kvmd/daemon/scheduler.py")
dropped = partial(Cut, "hyper2kvmd/daemon/dropped.py")
workspace = partial(Cut, "hyper2kvmd/host/workspace.py")

MAKING = (
    "        from hyper2kvmd.host.destination import make_output\n\n        make_output(order)\n"
    "        with nearest_output(order) as nearest:\n            present"
)
SHARED = destination("            if given or facts.st_uid not in (0, own.uid) or not safe:", "            if False:")

GUARDS: tuple[Guard, ...] = (
    # ---- the service's own directories
    *each((PRIVATE, CONFIGURED), destination("    if inside or way[0] in", "    if False and way[0] in")),
    *each(
        (*cases(PRIVATE, "above"), *cases(CONFIGURED, "above")),
        destination("    if inside or way[0] in", "    if inside or () in"),
    ),
    *each(cases(CONFIGURED, "home"), destination(" or (inner == 0 and way[0] in own)", "")),
    *each(
        (*cases(PRIVATE, "home", "home-ssh"), *cases(CONFIGURED, "home")),
        Cut("hyper2kvmd/config.py", "in (self.state_dir, *_homes()) if", "in (self.state_dir,) if"),
    ),
    *each(
        cases(CONFIGURED, "conversions", "below another conversion directory", "missing conversion directory"),
        Cut("hyper2kvmd/config.py", "(self.spool_dir, *self.conversion_dirs, *outer)", "(self.spool_dir, *outer)"),
    ),
    *each(
        "test_destinations.py::test_a_configured_directory_where_results_may_lie",
        destination("way[inner] not in permitted or", "True or"),
    ),
    *each(
        "test_destinations.py::test_a_job_judges_the_configured_directory",
        destination("        _require_apart(order.output_dir, nearest, bounds, bounds.outer_dirs)\n", ""),
    ),
    *each(
        "test_destinations.py::test_a_file_of_the_services_own_is_no_submission",
        dropped("owner.uid != os.geteuid() or owner.uid == 0", "True"),
    ),
    *each(
        "test_destinations.py::test_an_image_is_called_nothing_else",
        Cut(
            "hyper2kvmd/spec.py",
            "if asked.to_output and Path(asked.to_output).suffix.lower() not in suffixes:",
            "if False:",
        ),
    ),
    # ---- directories of others
    *each(NO_RIGHT, destination("    if not _may_create(person, handle):", "    if False:")),
    *each(
        cases(NO_RIGHT, "shut-above"),
        destination("SEARCH if number else WRITE | SEARCH", "0 if number else WRITE | SEARCH"),
    ),
    *each(cases(RIGHT, "theirs", "acl", "new"), destination("    if not _may_create(person, handle):", "    if True:")),
    *each(
        cases(RIGHT, "configured"),
        destination("return shared is not None and order.output_dir == shared.resolve()", "return False"),
    ),
    *each(
        "test_destinations.py::test_results_are_the_submitters_to_read",
        destination("acl.grant(handle, acl.Entry(acl.USER, READ, person.uid))", "pass"),
        destination("return None if _is_configured(order) else _submitter(order)", "return _submitter(order)"),
        destination("acl.grant(handle, acl.Entry(acl.USER, READ | WRITE | SEARCH, person.uid))", "pass"),
        destination("DIRECTORY_MODE = 0o751", "DIRECTORY_MODE = 0o750"),
        destination("DIRECTORY_MODE = 0o751", "DIRECTORY_MODE = 0o755"),
    ),
    *each(
        cases("test_destinations.py::test_who_reads_results_in_a_directory_of_a_group", "setgid"),
        Cut("hyper2kvmd/host/placing.py", "        share_in_team(handle, self._directory)\n", ""),
    ),
    *each(
        cases("test_destinations.py::test_who_reads_results_in_a_directory_of_a_group", "not setgid"),
        destination("not folder.st_mode & stat.S_ISGID or ", ""),
    ),
    *each(
        "test_destinations.py::test_a_right_for_the_submitter_is_none_for_others",
        Cut("hyper2kvmd/host/acl.py", "kept = [_masked(entry, mask) for", "kept = [entry for"),
    ),
    *each(
        "test_destinations.py::test_a_result_is_named_by_where_it_lies",
        Cut(
            "hyper2kvmd/stages/plan.py",
            "output_dir = Path(os.path.realpath(order.output_dir))",
            "output_dir = order.output_dir",
        ),
    ),
    # ---- where it converts
    *each(
        (
            "test_destinations.py::test_a_conversion_directory_that_no_administrator_allows",
            "test_destinations.py::test_cancelling_removes_nothing_elsewhere",
        ),
        workspace("    if allowed and named not in allowed:", "    if False:"),
    ),
    *each(
        "test_destinations.py::test_a_link_to_one_that_is_allowed",
        workspace("named not in allowed", "os.path.realpath(named) not in [os.path.realpath(one) for one in allowed]"),
    ),
    *each(
        "test_destinations.py::test_a_dry_run_makes_and_removes_no_output_directory",
        plan("        with nearest_output(order) as nearest:\n            present", MAKING),
    ),
    *each(
        "test_destinations.py::test_a_conversion_directory_that_one_allows",
        Cut("hyper2kvmd/config.py", "(self.conversion_dir, *self.allowed_conversion_dirs)", "(self.conversion_dir,)"),
    ),
    # ---- libvirt
    *each(SWAPPED, SHARED),
    *each(cases(SWAPPED, "owner", "above"), destination("facts.st_uid not in (0, own.uid) or not safe", "not safe")),
    *each(cases(SWAPPED, "sticky"), destination("safe = (number > 0 and ", "safe = (")),
    *each(
        "test_places.py::test_a_domain_that_is_called_like_anothers_uuid",
        (
            definition('"dumpxml", "--inactive", identity', '"dumpxml", "--inactive", name'),
            definition('"undefine", identity', '"undefine", name'),
        ),
    ),
    *each(
        "test_places.py::test_an_image_that_is_swapped_for_one_with_a_backing_file",
        domain('ET.SubElement(disk, "backingStore")', "pass"),
    ),
)
