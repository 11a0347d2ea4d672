"""Whether the raw folders are there, before DVC asks: data/given/tables.json, the optional tables that are there."""

from pipeline import files
from pipeline.mimic.folders import optional_tables
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """End in a line that names key and path where a folder or a needed table is not there."""
    (data,) = read("data")
    files.write_json(optional_tables(data), "data/given/tables.json")


if __name__ == "__main__":
    main()
