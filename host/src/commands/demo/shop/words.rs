//! The words that the shop's texts are made of. Nothing here knows tables.

pub const FIRST_NAMES: &[&str] = &[
    "Aaliyah", "Adam", "Agnieszka", "Ahmed", "Aiko", "Alejandro", "Alice", "Amara", "Amélie", "Anders", "Andrea",
    "Anika", "Arjun", "Astrid", "Ayşe", "Beatriz", "Benjamin", "Björn", "Camila", "Carlos", "Charlotte", "Chiara",
    "Chloé", "Daniel", "David", "Deniz", "Dmitri", "Eleni", "Elif", "Emma", "Erik", "Esther", "Fatima", "Felix",
    "Fiona", "Florian", "Francesca", "Freya", "Gabriel", "Giulia", "Grace", "Hana", "Hannah", "Hans", "Helena",
    "Henry", "Hugo", "Ibrahim", "Ida", "Ingrid", "Isabella", "Ivan", "Jakob", "James", "Jana", "Javier", "Jean-Luc",
    "Johanna", "Jonas", "José", "Julia", "Kamal", "Karin", "Katarzyna", "Kenji", "Klara", "Lars", "Laura", "Leila",
    "Leon", "Liam", "Linnea", "Lucas", "Lucía", "Magdalena", "Malik", "Marco", "Maria", "Marta", "Mateo", "Matilda",
    "Mehmet", "Mia", "Milan", "Miriam", "Mohammed", "Nadia", "Naomi", "Niamh", "Nikolai", "Noah", "Noor", "Oliver",
    "Olivia", "Oskar", "Paula", "Pedro", "Petra", "Priya", "Rafael", "Rania", "Rosa", "Samuel", "Sara", "Seán",
    "Simone", "Sofia", "Søren", "Stefan", "Tariq", "Theo", "Thomas", "Tomás", "Valentina", "Victor", "Wei", "Yara",
    "Yuki", "Zeynep", "Zoë",
];

pub const LAST_NAMES: &[&str] = &[
    "Abdullah", "Almeida", "Andersen", "Bakker", "Barbieri", "Bauer", "Becker", "Bennett", "Bergström", "Bianchi",
    "Brown", "Carter", "Castillo", "Chen", "Clarke", "Costa", "Cruz", "Dahl", "Davies", "De Vries", "Demir", "Diaz",
    "Dubois", "Eriksen", "Evans", "Fernández", "Ferrari", "Fischer", "Fontaine", "Fraser", "García", "Gonçalves",
    "Green", "Gruber", "Gupta", "Haddad", "Hall", "Hansen", "Hoffmann", "Horvat", "Hughes", "Ibrahim", "Ivanov",
    "Jansen", "Janssens", "Jensen", "Johansson", "Jones", "Kaya", "Keller", "Kim", "Klein", "Kowalski", "Kumar",
    "Larsen", "Laurent", "Lee", "Lefèvre", "Lehmann", "Lindqvist", "Lopes", "López", "Mäkinen", "Marino", "Martin",
    "Martínez", "Mayer", "McCarthy", "Meyer", "Moreau", "Moretti", "Müller", "Murphy", "Nagy", "Nakamura", "Nguyen",
    "Nielsen", "Novak", "Nowak", "O'Brien", "O'Connor", "Okafor", "Olsen", "Papadopoulos", "Park", "Patel",
    "Pereira", "Petrov", "Popescu", "Ricci", "Richter", "Robinson", "Romano", "Rossi", "Roux", "Ryan", "Santos",
    "Sato", "Schmidt", "Schneider", "Silva", "Singh", "Smith", "Sørensen", "Suzuki", "Svensson", "Tanaka", "Taylor",
    "Thompson", "Torres", "Turner", "Van Dijk", "Virtanen", "Vogel", "Wagner", "Walker", "Weber", "Williams",
    "Wójcik", "Wright", "Yılmaz", "Young", "Zhang", "Zimmermann",
];

pub const STREETS: &[&str] = &[
    "Acacia Avenue", "Ahornweg", "Am Stadtpark", "Avenida de la Constitución", "Avenue Victor Hugo", "Bahnhofstraße",
    "Baker Street", "Bergstraße", "Birkenallee", "Boulevard Voltaire", "Calle Mayor", "Canal Walk", "Castle Road",
    "Chapel Lane", "Church Street", "Corso Garibaldi", "Dorfstraße", "Drottninggatan", "Elm Grove", "Fabrikstraße",
    "Gartenweg", "George Street", "Goethestraße", "Green Lane", "Harbour View", "Hauptstraße", "Herengracht",
    "High Street", "Hillside Close", "Industriestraße", "Jernbanegade", "Kerkstraat", "King's Road", "Kirchgasse",
    "Lindenstraße", "London Road", "Manor Drive", "Marktplatz", "Mill Lane", "Mozartgasse", "Nørrebrogade",
    "Nygata", "Orchard Way", "Park Avenue", "Passeig de Gràcia", "Piazza San Marco", "Plaza Nueva", "Prinsengracht",
    "Queen's Terrace", "Rathausplatz", "Ringstraße", "Rosenweg", "Rua Augusta", "Rua das Flores", "Rue de la Paix",
    "Rue des Écoles", "Rue du Moulin", "Schillerstraße", "Schulstraße", "Seeweg", "Springfield Road",
    "St. John's Road", "Station Road", "Storgata", "Strandvejen", "The Crescent", "Ulica Długa", "Via Dante",
    "Via Roma", "Victoria Road", "Waldweg", "Westend", "Wiesenstraße", "Windmill Hill", "York Street",
];

/// Name, country, first digits of its postcodes.
pub const CITIES: &[(&str, &str, &str)] = &[
    ("Amsterdam", "NL", "10"), ("Antwerpen", "BE", "20"), ("Athína", "GR", "10"), ("Barcelona", "ES", "08"),
    ("Basel", "CH", "40"), ("Bergen", "NO", "50"), ("Berlin", "DE", "10"), ("Bilbao", "ES", "48"),
    ("Bologna", "IT", "40"), ("Bordeaux", "FR", "33"), ("Bratislava", "SK", "81"), ("Bremen", "DE", "28"),
    ("Brno", "CZ", "60"), ("Bruxelles", "BE", "10"), ("Budapest", "HU", "10"), ("Cork", "IE", "T1"),
    ("Dresden", "DE", "01"), ("Dublin", "IE", "D0"), ("Düsseldorf", "DE", "40"), ("Eindhoven", "NL", "56"),
    ("Firenze", "IT", "50"), ("Frankfurt am Main", "DE", "60"), ("Gdańsk", "PL", "80"), ("Genève", "CH", "12"),
    ("Gent", "BE", "90"), ("Göteborg", "SE", "41"), ("Graz", "AT", "80"), ("Hamburg", "DE", "20"),
    ("Hannover", "DE", "30"), ("Helsinki", "FI", "00"), ("Innsbruck", "AT", "60"), ("København", "DK", "10"),
    ("Köln", "DE", "50"), ("Kraków", "PL", "30"), ("Leipzig", "DE", "04"), ("Lille", "FR", "59"),
    ("Linz", "AT", "40"), ("Lisboa", "PT", "11"), ("Ljubljana", "SI", "10"), ("Luxembourg", "LU", "11"),
    ("Lyon", "FR", "69"), ("Madrid", "ES", "28"), ("Malmö", "SE", "21"), ("Marseille", "FR", "13"),
    ("Milano", "IT", "20"), ("München", "DE", "80"), ("Nantes", "FR", "44"), ("Napoli", "IT", "80"),
    ("Nürnberg", "DE", "90"), ("Odense", "DK", "50"), ("Oslo", "NO", "01"), ("Paris", "FR", "75"),
    ("Porto", "PT", "40"), ("Poznań", "PL", "60"), ("Praha", "CZ", "11"), ("Roma", "IT", "00"),
    ("Rotterdam", "NL", "30"), ("Salzburg", "AT", "50"), ("Sevilla", "ES", "41"), ("Stockholm", "SE", "11"),
    ("Strasbourg", "FR", "67"), ("Stuttgart", "DE", "70"), ("Tampere", "FI", "33"), ("Torino", "IT", "10"),
    ("Toulouse", "FR", "31"), ("Trondheim", "NO", "70"), ("Utrecht", "NL", "35"), ("Valencia", "ES", "46"),
    ("Warszawa", "PL", "00"), ("Wien", "AT", "10"), ("Wrocław", "PL", "50"), ("Zagreb", "HR", "10"),
    ("Zürich", "CH", "80"),
];

pub const MAIL_HOSTS: &[&str] = &[
    "gmail.example", "outlook.example", "posteo.example", "gmx.example", "yahoo.example", "proton.example",
    "fastmail.example", "web.example", "orange.example", "icloud.example",
];

pub const LANGUAGES: &[&str] = &["en", "de", "fr", "es", "it", "nl", "pl", "sv", "pt", "da"];

pub const CATEGORIES: &[&str] =
    &["kitchen", "garden", "lighting", "office", "outdoor", "toys", "textiles", "tools", "audio", "cycling"];

pub const MATERIALS: &[&str] = &[
    "Oak", "Walnut", "Bamboo", "Stainless Steel", "Cast Iron", "Copper", "Merino", "Linen", "Organic Cotton", "Cork",
    "Recycled Plastic", "Aluminium", "Ceramic", "Stoneware", "Borosilicate", "Leather", "Canvas", "Felt", "Beech",
    "Titanium",
];

pub const STYLES: &[&str] = &[
    "Compact", "Folding", "Classic", "Nordic", "Portable", "Stackable", "Heavy-Duty", "Lightweight", "Adjustable",
    "Handmade", "Vintage", "Modular", "Waterproof", "Insulated", "Rechargeable", "Silent", "Travel", "Family-Size",
];

pub const THINGS: &[&str] = &[
    "Chopping Board", "French Press", "Desk Lamp", "Camping Stove", "Watering Can", "Bread Knife", "Storage Box",
    "Headphones", "Bike Light", "Tool Roll", "Blanket", "Notebook", "Pepper Mill", "Wall Shelf", "Rain Jacket",
    "Water Bottle", "Plant Pot", "Screwdriver Set", "Speaker", "Saddle Bag", "Cushion", "Pen Holder", "Frying Pan",
    "Garden Trowel", "Lantern", "Monitor Stand", "Hammock", "Building Blocks", "Tea Towel", "Cordless Drill",
];

pub const SENTENCES: &[&str] = &[
    "Made in a small workshop and finished by hand.",
    "Dishwasher safe up to 60 °C; we recommend washing by hand.",
    "The surface is treated with natural oil and can be renewed at any time.",
    "Fits through every door and weighs less than it looks.",
    "Comes with a five-year guarantee on all moving parts.",
    "Replacement parts are available for at least ten years.",
    "Packed without plastic.",
    "Assembly takes about ten minutes; tools are included.",
    "Tested for 20,000 cycles by an independent laboratory.",
    "The rounded edges sit comfortably in the hand.",
    "Batteries are not included.",
    "Charges over USB-C and lasts for up to 14 hours.",
    "Suitable for indoor and outdoor use.",
    "Each piece differs slightly in colour and grain.",
    "Keeps drinks hot for eight hours and cold for twenty-four.",
    "Our best seller since 2016, now in a quieter version.",
    "Designed in Copenhagen, produced in Portugal.",
    "The cover can be removed and washed at 30 °C.",
    "Please keep out of reach of children under three years.",
    "Ships flat; the screws are in the bag taped to the back.",
    "Holds up to 25 kg when fixed to a solid wall.",
    "The lid doubles as a tray.",
    "Free of BPA, lead and cadmium.",
    "Awarded by the readers of three magazines.",
];

pub const COLOURS: &[&str] = &[
    "black", "white", "oak", "slate", "moss", "terracotta", "navy", "sand", "mustard", "petrol", "rose", "graphite",
];

pub const TAGS: &[&str] = &[
    "new", "sale", "bestseller", "gift", "eco", "handmade", "limited", "b-stock", "bulky", "fragile", "bundle",
];

pub const NOTES: &[&str] = &[
    "Please leave the parcel with the neighbour on the ground floor.",
    "Gift: no invoice in the parcel, please.",
    "Ring twice, the bell is slow.",
    "Deliver after 5 pm.",
    "Second attempt, first parcel arrived damaged.",
    "Customer asked for a call before delivery.",
    "Please put it behind the blue bin.",
    "Company closed on Fridays.",
    "Exchange for the larger size.",
    "Birthday present, wrap it please!",
    "The entrance is in the courtyard, second door on the left.",
    "Fragile, please mark the box.",
];

pub const CARRIERS: &[&str] = &["DHL", "DPD", "GLS", "UPS", "PostNL", "Hermes", "bike courier"];
pub const PAYMENTS: &[&str] = &["card", "paypal", "invoice", "sepa", "klarna", "ideal"];
pub const CHANNELS: &[&str] = &["web", "ios", "android", "store", "phone"];
pub const STATUSES: &[&str] = &["placed", "paid", "packed", "shipped", "delivered", "returned", "cancelled"];
