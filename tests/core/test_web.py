"""Files at public addresses, from a real server. Source: semantics section 4."""

from __future__ import annotations

import socket
import tracemalloc

import pytest

from airflow_aml_data import Dataset, Workspace
from airflow_aml_data.core.storage.base import Placement
from airflow_aml_data.core.storage.web import WebFile, check_url
from airflow_aml_data.errors import FilesExist, FilesNotFound, InvalidDeclaration, StorageError, UserError

CSV = b"a,b\n1,x\n2,y\n"


def of(url):
    return Dataset.File.from_files(url)


def fetch(url, folder):
    source = WebFile(url, timeout_seconds=5)
    listed = next(source.list_files(url))
    source.download([Placement(listed, source.file_name)], folder, lambda files, size: None)
    return (folder / source.file_name).read_bytes()


class TestReading:
    def test_a_file_dataset_of_an_address(self, workspace, web, tmp_path):
        web.answers["/data/iris%20small.csv?v=1"] = CSV
        made = of(f"{web.url}/data/iris%20small.csv?v=1")
        assert web.asked == []
        assert made.to_path() == ["/iris small.csv"]
        (copy,) = made.download(tmp_path / "to")
        assert (tmp_path / "to" / "iris small.csv").read_bytes() == CSV
        assert copy == str(tmp_path / "to" / "iris small.csv")

    def test_a_table_of_an_address(self, workspace, web):
        web.answers["/iris.csv"] = CSV
        frame = Dataset.Tabular.from_delimited_files(f"{web.url}/iris.csv").to_pandas_dataframe()
        assert (list(frame.columns), frame["a"].tolist()) == (["a", "b"], [1, 2])

    def test_several_addresses_keep_their_order_and_the_folders_they_do_not_share(self, workspace, web, tmp_path):
        web.answers |= {"/y/2020/a.csv": b"a\n1\n", "/y/2021/a.csv": b"a\n2\n"}
        urls = [f"{web.url}/y/2021/a.csv", f"{web.url}/y/2020/a.csv"]
        assert of(urls).to_path() == urls
        copies = of(urls).download(tmp_path)
        assert copies == [str(tmp_path / year / "a.csv") for year in ("2021", "2020")]
        assert Dataset.Tabular.from_delimited_files(urls).to_pandas_dataframe()["a"].tolist() == [2, 1]

    def test_addresses_that_differ_in_their_query_only_are_read_as_a_table_and_refused_as_files(
        self, workspace, web, tmp_path
    ):
        web.answers |= {"/export?y=1": b"a\n1\n", "/export?y=2": b"a\n2\n"}
        urls = [f"{web.url}/export?y=1", f"{web.url}/export?y=2"]
        assert Dataset.Tabular.from_delimited_files(urls).to_pandas_dataframe()["a"].tolist() == [1, 2]
        with pytest.raises(FilesExist, match="two datasets"):
            of(urls).download(tmp_path / "to")
        assert not (tmp_path / "to").exists()

    def test_is_registered_and_reaches_a_step(self, steps, web):
        web.answers["/raw.csv"] = CSV
        of(f"{web.url}/raw.csv").register(steps.workspace, "raw")
        known = Dataset.get_by_name(steps.workspace, "raw")
        script = "import sys; assert open(sys.argv[1]).read().startswith('a,b')"
        for each in (known.as_mount(), known.as_download(), of(f"{web.url}/raw.csv").as_mount()):
            steps.run(script, arguments=[each])

    def test_a_file_filter_sees_size_extension_and_time(self, workspace, web):
        web.answers["/a.csv?x=1.zip"] = lambda answer: answer.body(CSV, Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
        made = of(f"{web.url}/a.csv?x=1.zip")
        size, suffix = made.file_metadata("Size") == len(CSV), made.file_metadata("Extension") == ".csv"
        assert made.filter(size & suffix).to_path() == ["/a.csv"]
        assert made.filter(~size).to_path() == []

    def test_nothing_is_asked_to_be_compressed(self, web, tmp_path):
        web.answers["/a"] = b"x"
        fetch(f"{web.url}/a", tmp_path)
        assert {headers["Accept-Encoding"] for _, headers in web.asked} == {"identity"}

    def test_a_server_that_does_not_say_how_long_a_file_is(self, web, tmp_path):
        web.answers["/a"] = lambda answer: answer.body(b"xyz", Content_Length="")
        assert next(WebFile(f"{web.url}/a").list_files("")).size_bytes == 3
        assert fetch(f"{web.url}/a", tmp_path) == b"xyz"

    def test_redirects_are_followed(self, web, tmp_path):
        web.answers |= {"/old": lambda answer: answer.body(b"", 302, Location="/new"), "/new": b"here"}
        assert fetch(f"{web.url}/old", tmp_path) == b"here"

    def test_a_large_file_does_not_go_through_memory(self, web, tmp_path):
        size = 32 * 1024 * 1024
        web.answers["/large"] = lambda answer: (
            answer.body(b"", Content_Length=str(size)),
            [answer.wfile.write(b"\0" * 65536) for _ in range(size // 65536)],
        )
        source = WebFile(f"{web.url}/large")
        listed = next(source.list_files(""))
        tracemalloc.start()
        try:
            source.download([Placement(listed, "large")], tmp_path, lambda files, size: None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (tmp_path / "large").stat().st_size == size
        assert peak < 8 * 1024 * 1024


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("status", "error", "message"),
        [
            (404, FilesNotFound, "The requested stream was not found"),
            (410, FilesNotFound, "The requested stream was not found"),
            (401, UserError, "not public"),
            (403, UserError, "not public"),
            (400, UserError, "Check the address"),
            (429, StorageError, "Try again later"),
            (500, StorageError, "500 .* Try again later"),
            (503, StorageError, "Try again later"),
        ],
    )
    def test_an_answer_that_is_no_file(self, web, tmp_path, status, error, message):
        web.answers["/a"] = lambda answer: answer.body(b"no", status)
        with pytest.raises(error, match=message):
            fetch(f"{web.url}/a", tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_truncated_body_leaves_nothing(self, web, tmp_path):
        def half(answer):
            answer.body(b"half", Content_Length="8")

        web.answers["/a"] = half
        with pytest.raises(StorageError, match="ended after 4 of 8 bytes"):
            fetch(f"{web.url}/a", tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_truncated_body_in_chunks(self, web, tmp_path):
        def half(answer):
            answer.protocol_version = "HTTP/1.1"
            answer.body(b"8\r\nhalf", Content_Length="", Transfer_Encoding="chunked", Connection="close")

        web.answers["/a"] = half
        with pytest.raises(StorageError, match="cannot be read"):
            fetch(f"{web.url}/a", tmp_path)

    @pytest.mark.parametrize("after", [(b"12345", "one"), (b"1234", "two")])
    def test_a_file_that_changes_between_listing_and_reading(self, web, tmp_path, after):
        source = WebFile(f"{web.url}/a")
        web.answers["/a"] = lambda answer: answer.body(b"1234", ETag="one")
        listed = next(source.list_files(""))
        web.answers["/a"] = lambda answer: answer.body(after[0], ETag=after[1])
        with pytest.raises(StorageError, match="changed while it was read"):
            source.download([Placement(listed, "a")], tmp_path, lambda files, size: None)
        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_says_nothing(self, web, tmp_path):
        answered = []
        web.answers["/a"] = lambda answer: answered.append(answer.rfile.read())  # until the client goes
        with pytest.raises(StorageError, match="timed out"):
            next(WebFile(f"{web.url}/a", timeout_seconds=0.1).list_files(""))

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # and does not listen
            with pytest.raises(StorageError, match="refused"):
                next(WebFile(f"http://127.0.0.1:{free.getsockname()[1]}/a").list_files(""))

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,x"])
    def test_redirects_to_other_places_are_refused(self, web, target):
        web.answers["/a"] = lambda answer: answer.body(b"", 302, Location=target)
        with pytest.raises(UserError, match=r"only http and https|not allowed"):
            next(WebFile(f"{web.url}/a").list_files(""))

    def test_endless_redirects(self, web):
        web.answers["/a"] = lambda answer: answer.body(b"", 302, Location="/a")
        with pytest.raises(UserError, match="302"):
            next(WebFile(f"{web.url}/a").list_files(""))

    def test_a_body_that_is_compressed_all_the_same(self, web):
        web.answers["/a"] = lambda answer: answer.body(b"x", Content_Encoding="gzip")
        with pytest.raises(UserError, match="compressed"):
            next(WebFile(f"{web.url}/a").list_files(""))

    def test_messages_do_not_show_the_query(self, web):
        with pytest.raises(FilesNotFound) as error:
            next(WebFile(f"{web.url}/a?token=secret").list_files(""))
        assert "secret" not in str(error.value)

    def test_a_missing_address_can_be_ignored(self, workspace, web, tmp_path):
        web.answers["/a"] = b"x"
        made = of([f"{web.url}/gone", f"{web.url}/a"])
        with pytest.raises(FilesNotFound):
            made.download(tmp_path)
        assert made.download(tmp_path, ignore_not_found=True) == [str(tmp_path / "a")]


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "asked"),
        [
            ("https://host/a b.csv", "https://host/a%20b.csv"),
            ("https://host/\u00e4.csv?q=\u00e4#part", "https://host/%C3%A4.csv?q=%C3%A4"),
            ("HTTPS://host/a%20b", "https://host/a%20b"),
        ],
    )
    def test_are_asked_for_in_ascii(self, url, asked):
        assert check_url(url) == asked == check_url(asked)

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("https://h/a/b.csv?x=/c", "b.csv"),
            ("https://h/%2E%2E", "data"),
            ("https://h/a%2Fb%5Cc", "a_b_c"),
            ("https://h/", "data"),
            ("https://h", "data"),
            ("https://h/a%00b", "a_b"),
        ],
    )
    def test_give_files_safe_names(self, url, name):
        assert WebFile(url).file_name == name
        assert ".." not in WebFile(url.replace("h/", "h/%2e%2e/", 1)).folder

    @pytest.mark.parametrize(
        "url",
        [
            "https://h/c/b.csv?sv=2020&SIG=abc%3D",
            "https://user:secret@h/b.csv",
            "https://user@h/b.csv",
            "https:///b.csv",
            "https://h:port/b.csv",
            "https://[h/b.csv",
            "https://h/b\n.csv",
            "https://h/b.csv\n",
            "https://h\u00f6st/b.csv",
        ],
    )
    def test_with_credentials_or_without_a_host_are_refused_when_declared(self, url):
        with pytest.raises(InvalidDeclaration) as error:
            of(url)
        assert "secret" not in str(error.value)
        assert "abc" not in str(error.value)

    def test_may_hold_a_template(self, web):
        made = of("https://h/{{ ds }}/a b.csv")
        assert made.sources[0].url == "https://h/{{ ds }}/a b.csv"
        assert made.workspace == Workspace()
