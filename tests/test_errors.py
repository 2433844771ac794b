import pickle

from lratlas.errors import DamagedFile


def test_damage_found_by_another_process_keeps_its_path():
    error = pickle.loads(pickle.dumps(DamagedFile("It is damaged.", "tables/x")))
    assert (str(error), error.path) == ("It is damaged.", "tables/x")
