"""One fleet for tests that leave it as it was: two sites, five machines, an image."""

from collections.abc import Generator

import pytest

from tests.support.fleet import Fleet, fleet

SERVERS = 5
ACCEPTED = 3
IMAGE_MIB = 40


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """The fleet, started once."""
    with fleet(tmp_path_factory.mktemp("site"), SERVERS, IMAGE_MIB) as made:
        made.start_sites()
        made.register_image()
        made.accept(ACCEPTED)
        yield made


@pytest.fixture
def site(shared: Fleet) -> Fleet:
    """The fleet, with everything running again that an earlier test may have left down."""
    shared.heal()
    return shared
