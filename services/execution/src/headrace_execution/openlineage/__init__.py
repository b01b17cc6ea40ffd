"""What runs read and wrote, told to a catalogue of lineage in the words of OpenLineage (https://openlineage.io)."""
