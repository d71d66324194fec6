"""The status pages in a real browser, in three sizes, light and dark, judged by axe.

Pictures go to .cache/screenshots.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from hyper2kvmd.model.guest import Change, Guest, Nic
from hyper2kvmd.model.results import Verdict
from tests.support.host import REPOSITORY
from tests.support.house import House, until
from tests.support.reports import made

CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = REPOSITORY / ".cache" / "screenshots"
SIZES = ((390, 844), (820, 1180), (1440, 900))
SCHEMES = ("light", "dark")
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "failed": "/jobs?state=failed&state=rejected&sort=finished",
    "job-succeeded": "/jobs/1",
    "job-failed": "/jobs/3",
    "job-running": "/jobs/6",
    "batches": "/batches",
    "batch": "/batches/1",
    "host": "/host",
    "error": "/errors/source-missing",
    "nothing": "/nowhere",
}
ENDED = {
    "web01": ("plan", "convert", "publish"),
    "db01": ("warn /etc/fstab: /dev/sr0 has no stable name. It stays as it is", "plan", "convert", "publish"),
    "mail01": ("plan", "fail retry space-never"),
    "a-name-that-is-as-long-as-libvirt-takes-it-" + "x" * 20: ("plan", "fail permanent source-missing"),
}
LONG_PATH = "/etc/NetworkManager/system-connections/" + "x" * 80
GUEST = Guest(
    os_name="Debian GNU/Linux 12 (bookworm)",
    hostname="web01",
    kernels=("6.1.0-50-cloud-amd64", "6.1.0-49-cloud-amd64"),
    boot_loader="grub2",
    root="partition 1 (ext4, UUID b8237f2f-d9bd-494a-9c32-3b7bc5525d68)",
    nics=(Nic(name="ens192", mac="52:54:00:00:00:01", network="VM Network"),),
    changes=(Change(fix="network", path=LONG_PATH, summary="the card is found by its MAC address"),),
)
PROOF = Verdict(level="boot", evidence=("the guest asked for a login on its serial console",), boot_seconds=31.0)
RUNNING = {"files01": ("progress 43 100",), "erp01": ("progress 71 100",)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with jobs in all states."""
    house = House(tmp_path_factory.mktemp("house"))
    house.configure(max_concurrent_jobs=2)
    house.start()
    try:
        populate(house)
        yield house
    finally:
        house.close()


def populate(house: House) -> None:
    for number, (name, words) in enumerate(ENDED.items(), 1):
        house.drop(f"{number}.yaml", house.migration(f"{number}", *words, vm_name=name))
        until(partial(over, house, number), f"{name} has ended")
    (house.root / "images" / "web01.json").write_text(made(GUEST, PROOF).model_dump_json())
    house.drop("printer.yaml", "vmdk: disk.vmdk\nbanana: 1\n")
    house.rejection("printer.yaml")
    for name, words in RUNNING.items():
        house.drop(f"{name}.yaml", house.migration(name, "plan", "start convert", *words, f"wait {house.root}/go"))
    until(lambda: sum(job.progress is not None for job in house.status().running) == 2, "two jobs run")
    wave = [json.loads(house.migration(name, "plan")) for name in ("web02", "web03", "web04", "ldap01")]
    house.drop("wave 2.yaml", json.dumps({"vms": wave}))
    until(lambda: len(house.jobs()) == len(ENDED) + 1 + len(RUNNING) + len(wave), "the batch is queued")
    assert house.ask("POST", f"/v1/jobs/{len(house.jobs())}/hold")[0] == 200
    assert house.ask("POST", f"/v1/jobs/{len(house.jobs()) - 1}/cancel")[0] == 200


def over(house: House, number: int) -> bool:
    jobs = house.jobs()
    return len(jobs) >= number and not jobs[number - 1].state.active


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_each_page_fits_and_can_be_read_by_everybody(
    site: House, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    viewport = ViewportSize(width=size[0], height=size[1])
    context = browser.new_context(viewport=viewport, color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    faults = {}
    for name, path in PAGES.items():
        answer = page.goto(f"http://127.0.0.1:{site.port}{path}")
        assert answer is not None and answer.status == (404 if name == "nothing" else 200)
        page.screenshot(path=SCREENSHOTS / f"{name}-{size[0]}x{size[1]}-{scheme}.png")
        faults[name] = [*overflowing(page), *violations(page)]
    context.close()
    assert {name: found for name, found in faults.items() if found} == {}
    assert [text for text in complaints if "404" not in text] == [], "the page is served as its policy asks"


def overflowing(page: Page) -> list[str]:
    """What makes the page wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"{width} px too wide"] if width > 0 else []


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


def test_the_pages_are_styled_and_dark_where_it_is_asked(site: House, browser: Browser) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
        page.goto(f"http://127.0.0.1:{site.port}/")
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert colours == {"rgb(255, 255, 255)", "rgb(13, 17, 23)"}


def test_a_reader_finds_the_remedy_of_a_failed_job_by_links_and_filters(site: House, browser: Browser) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.get_by_role("link", name="Jobs").first.click()
    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Show").click()
    assert "state=failed" in page.url
    page.get_by_role("link", name="3", exact=True).click()
    words = page.inner_text("main")
    assert "What to do: Tell it otherwise." in words
    assert "space-never (all attempts failed)" in " ".join(words.split()), "nothing tries it again by itself"
    page.get_by_role("link", name="space-never").click()
    assert "Usual causes" in page.inner_text("main")
    page.close()


def test_the_report_of_a_job_is_on_its_page(site: House, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{site.port}/jobs/1")
    words = page.inner_text("main")
    assert "Debian GNU/Linux 12" in words and LONG_PATH in words and "VM Network -> default" in words
    assert page.get_by_role("heading", name="Network cards").is_visible()
    assert "52:54:00:00:00:01" not in words
    page.close()
