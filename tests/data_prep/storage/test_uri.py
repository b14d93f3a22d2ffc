"""Places as text."""

import pytest

from data_prep import storage


@pytest.mark.parametrize(
    ("place", "parent"),
    [
        ("/a/b", "/a"),
        ("/a/b/", "/a"),
        ("a", "."),
        ("/a", "/"),
        ("/", "/"),
        ("/what?/b", "/what?"),
        ("file:///a/b", "file:///a"),
        ("file:///a", "file:///"),
        ("s3://b/x/y?scheme=http", "s3://b/x?scheme=http"),
        ("s3://b/x/", "s3://b"),
        ("s3://b", "s3://b"),
    ],
)
def test_parent(place, parent):
    assert storage.parent_of(place) == parent


@pytest.mark.parametrize("place", ["/a", "a", "file:///a", "s3://b/x?scheme=http"])
def test_the_parent_of_a_joined_place_is_the_place(place):
    joined = storage.join(place, "one two", "%3F")
    assert storage.parent_of(storage.parent_of(joined)) == place
    assert storage.name_of(joined) == "%3F"
